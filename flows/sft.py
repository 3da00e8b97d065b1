"""The pipeline. Read it from top to bottom: each line is a stage.

python -m flows.sft              # the demo, on the defaults
tunetrail run my-config.yaml     # the same flow with another config
"""

import sys

from prefect import flow

from flows.audit import check_data
from sft_core.base_model import resolve_base
from sft_core.config import DEMO, PipelineConfig
from sft_core.evaluation.fairness.pairs import probe_pairs
from sft_core.training.adapters import check_method
from tasks.accounting import account
from tasks.attribution import attribute
from tasks.champion import find_champion
from tasks.contest import Contest
from tasks.data_card import write_data_card
from tasks.evaluation import evaluate
from tasks.exports import write_exports
from tasks.fairness import fairness
from tasks.memorisation import memorisation
from tasks.model_card import write_model_card
from tasks.null import measure_null
from tasks.page import write_page
from tasks.registration import nominate, register
from tasks.reloading import reload
from tasks.retention import retention
from tasks.robustness import robustness
from tasks.sealing import seal, seal_plan
from tasks.stage import StageRunner
from tasks.tokenization import tokenize
from tasks.training import train


@flow(name="sft", description="Check the data, fine-tune with LoRA, evaluate, write the record.")
def sft(config: PipelineConfig = DEMO) -> str:
    """Run all stages; returns MLflow's id of the run.

    Raises:
        GateError: a gate did not pass. Card and record are written all the same.
    """
    folder, base = resolve_base(config.model)
    check_method(folder, config.model, config.training)
    probe_pairs(config.fairness, seed=config.seed)
    with StageRunner(config, "sft") as run:
        with run.stages():
            rows = check_data(run, config)
            run(seal_plan, run.record(), config, rows["train"])
            virtual = config.training.num_virtual_tokens
            tokens = run(tokenize, rows, base, config.model, config.tokenization, virtual)
            tuned = run(train, tokens, config.model, config.training, config.seed)
            run(reload, tokens, tuned, config.model, config.training)
            if config.attribution.enabled:
                how = config.training, config.attribution, config.seed
                run(attribute, rows["train"], tokens, tuned, config.model, *how)
            contest = Contest.of(config, tokens, tuned)
            champion = find_champion(run, contest)
            with run.together():
                run(evaluate, contest, champion, rows["test"], config.evaluation)
                run(retention, contest, config.retention)
                null = None
                if config.fairness.null_runs:
                    sections = config.tokenization, config.training, config.fairness, config.bias
                    null = run(measure_null, contest, rows, *sections)
                run(fairness, contest, rows["test"], null, config.fairness, config.bias)
                run(robustness, contest, rows["test"], config.robustness)
                run(memorisation, contest, rows, config.memorisation)
        run.close_with(
            account,
            write_data_card,
            write_page,
            write_model_card,
            write_exports,
            register,
            seal,
            nominate,
        )
    return run.run_id


if __name__ == "__main__":
    from flows.cli import main

    sys.exit(main(["run"]))
