"""Training in two processes is one call to the flow: one stage, one MLflow run, no task more."""

import pytest

from tests.conftest import change, children, tracking

pytestmark = [pytest.mark.flow, pytest.mark.slow]


def test_two_processes_train_the_demo_base(prefect_server, home, quick_config):
    from flows.sft import sft

    run_id = sft(change(quick_config, training={"num_processes": 2}))
    run = tracking(home).get_run(run_id)
    assert run.data.tags["tunetrail.verdict"] == "pass"
    assert run.data.metrics["evaluate/loss_gain_low"] > 0
    train = children(home, run_id)["train"].info.run_id
    points = tracking(home).get_metric_history(train, "loss")
    assert [point.step for point in points] == [1, 2, 3, 4]
    assert list((home / "checkpoints").iterdir()) == []
