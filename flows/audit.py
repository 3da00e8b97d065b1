"""The data half alone: imports no torch, trains nothing.

python -m flows.audit
tunetrail audit my-config.yaml
"""

import sys

from prefect import flow

from flows.sft import check_data
from sft_core.config import DEMO, PipelineConfig
from tasks.accounting import account
from tasks.data_card import write_data_card
from tasks.model_card import write_model_card
from tasks.page import write_page
from tasks.sealing import seal
from tasks.stage import StageRunner


@flow(name="audit", description="Check the data alone and write the record.")
def audit(config: PipelineConfig = DEMO) -> str:
    """Run stages 1 to 7; returns MLflow's id of the run.

    Raises:
        GateError: a gate did not pass. The record is written all the same.
    """
    with StageRunner(config, "audit") as run:
        with run.stages():
            check_data(run, config)
        run.close_with(account, write_data_card, write_page, write_model_card, seal)
    return run.run_id


if __name__ == "__main__":
    from flows.cli import main

    sys.exit(main(["audit"]))
