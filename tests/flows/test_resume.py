"""A run that is killed goes on, in the same MLflow run, whichever stage it was in."""

import signal

import pytest

from sft_core.lineage.verification import verify
from tasks.tracking import Tracker
from tests.conftest import change, tracking
from tests.flows.killable import start as start_process

pytestmark = pytest.mark.flow

STAGES = [
    "ingest", "permit", "validate", "protect", "deduplicate", "split", "decontaminate",
    "audit_bias", "plan", "tokenize", "train", "reload", "evaluate", "retention",
    "fairness", "robustness", "memorisation", "account", "data_card", "page",
    "model_card", "register", "seal", "nominate",
]  # fmt: skip


@pytest.fixture
def start(prefect_server, home):
    """Run the command on a config to its end, or until it is killed."""
    from prefect.settings import PREFECT_API_URL

    def run(config, kill_at=""):
        home.mkdir(exist_ok=True)
        path = home / "config.json"
        path.write_text(config.model_dump_json())
        code = start_process(home, PREFECT_API_URL.value(), path, kill_at)
        assert code == (-signal.SIGKILL if kill_at else 0)

    return run


def runs_of(home):
    """The parent run, which must be the only one, and its children."""
    client = tracking(home)
    runs = client.search_runs([client.get_experiment_by_name("quick").experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    return parent, [run for run in runs if run is not parent]


@pytest.mark.slow
@pytest.mark.timeout(900)  # twenty starts of the command
def test_killed_in_every_stage_it_ends_as_one_run(start, home, quick_config):
    for stage in STAGES:
        start(quick_config, f"{stage}: started")
    start(quick_config)
    parent, stages = runs_of(home)
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["tunetrail.verdict"] == "pass"
    assert parent.data.tags["tunetrail.times_resumed"] == str(len(STAGES))
    finished = [r.data.tags["tunetrail.stage"] for r in stages if r.info.status == "FINISHED"]
    assert sorted(finished) == sorted(STAGES)
    killed = [r.data.tags["tunetrail.stage"] for r in stages if r.info.status == "KILLED"]
    assert set(killed) <= set(STAGES)
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


@pytest.mark.slow
def test_training_goes_on_from_its_checkpoint(start, home, quick_config):
    """In the same run; and a checkpoint of this config never resumes another one."""
    steps = {"max_steps": 40, "save_steps": 5, "logging_steps": 4}
    config = change(quick_config, training=steps)
    start(config, "train: step 24 of 40")
    start(config)
    parent, stages = runs_of(home)
    assert parent.info.status == "FINISHED"
    metrics = [r.data.metrics for r in stages if "resumed_after_step" in r.data.metrics]
    assert [m["resumed_after_step"] >= 20 for m in metrics] == [True]


def test_a_run_whose_process_lives_is_left_alone(home, quick_config):
    first, second = Tracker(), Tracker()
    one = first.open("sft", quick_config, "flow-1", "one")
    two = second.open("sft", quick_config, "flow-2", "two")
    assert one != two
    second._lock.release()  # as the kernel does when the process of the second has gone
    third = Tracker()
    assert third.open("sft", quick_config, "flow-3", "three") == two
    other = change(quick_config, training={"max_steps": 5})
    third._lock.release()
    assert Tracker().open("sft", other, "flow-4", "four") not in (one, two)
    assert Tracker().open("audit", quick_config, "flow-5", "five") not in (one, two)
    tags = tracking(home).get_run(two).data.tags
    assert tags["tunetrail.times_resumed"] == "1"
    assert tags["prefect.flow_run_id"] == "flow-3"
