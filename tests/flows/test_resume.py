"""A run that is killed goes on, in the same MLflow run, whichever stage it was in."""

import os
import signal
import subprocess
import sys

import pytest

from sft_core.lineage.verification import verify
from tests.conftest import ROOT, change, tracking
from tests.flows.test_sft import STAGES

pytestmark = [pytest.mark.flow, pytest.mark.slow]


@pytest.fixture
def start(prefect_server, home):
    """Start the command on a config; `stop_at` ends it with SIGKILL when that line appears."""
    from prefect.settings import PREFECT_API_URL

    def run(config, stop_at=None):
        home.mkdir(exist_ok=True)
        (home / "config.json").write_text(config.model_dump_json())
        with subprocess.Popen(
            [sys.executable, "-m", "flows.cli", "run", str(home / "config.json")],
            cwd=ROOT,
            env=os.environ | {"PREFECT_API_URL": PREFECT_API_URL.value()},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            lines = []
            for line in process.stderr:
                lines.append(line)
                if stop_at is not None and line.rstrip().endswith(stop_at):
                    process.send_signal(signal.SIGKILL)
                    break
            process.stderr.read()
            code = process.wait(timeout=60)
        assert code == (0 if stop_at is None else -signal.SIGKILL), "".join(lines)
        return "".join(lines)

    return run


def runs_of(home):
    """The parent run, which must be the only one, and its children."""
    client = tracking(home)
    runs = client.search_runs([client.get_experiment_by_name("quick").experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    return parent, [run for run in runs if run is not parent]


ORDER = [
    "ingest", "permit", "validate", "protect", "deduplicate", "split", "decontaminate",
    "audit_bias", "plan", "tokenize", "train", "evaluate", "account", "data_card", "page",
    "model_card", "register", "seal", "nominate",
]  # fmt: skip


def test_killed_in_every_stage_it_ends_as_one_run(start, home, quick_config):
    assert set(ORDER) == STAGES
    for stage in ORDER:
        start(quick_config, f"{stage}: started")
    start(quick_config)
    parent, stages = runs_of(home)
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["tunetrail.verdict"] == "pass"
    assert parent.data.tags["tunetrail.times_resumed"] == str(len(ORDER))
    finished = [r.data.tags["tunetrail.stage"] for r in stages if r.info.status == "FINISHED"]
    assert sorted(finished) == sorted(STAGES)
    killed = [r.data.tags["tunetrail.stage"] for r in stages if r.info.status == "KILLED"]
    assert set(killed) <= STAGES
    assert len(finished) + len(killed) == len(stages)
    (train,) = [
        r
        for r in stages
        if r.data.tags["tunetrail.stage"] == "train" and r.info.status == "FINISHED"
    ]
    points = tracking(home).get_metric_history(train.info.run_id, "loss")
    assert [point.step for point in points] == [1, 2, 3, 4]
    (version,) = tracking(home).search_model_versions("name='quick'")
    assert version.run_id == parent.info.run_id
    assert list(verify(parent.info.run_id))
    assert list((home / "open-runs").glob("*.lock")) == []
    assert list((home / "checkpoints").iterdir()) == []


def test_training_goes_on_from_its_checkpoint_in_the_same_run(start, home, quick_config):
    config = change(quick_config, training={"max_steps": 40, "save_steps": 10, "logging_steps": 4})
    start(config, "train: step 20 of 40, loss 0")
