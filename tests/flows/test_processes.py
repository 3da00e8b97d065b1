"""Training in two processes is one call to the flow: one stage, one MLflow run, no task more."""

import pytest

from tests.conftest import change, children, tracking

pytestmark = [pytest.mark.flow, pytest.mark.slow]


def test_two_processes_train_the_demo_base_to_the_losses_of_one(prefect_server, home, quick_config):
    from flows.sft import sft

    one = change(quick_config, training={"gradient_accumulation_steps": 2})
    two = change(quick_config, training={"num_processes": 2})
    curves = []
    for config in (one, two):
        run_id = sft(config)
        assert tracking(home).get_run(run_id).data.tags["tunetrail.verdict"] == "pass"
        train = children(home, run_id)["train"].info.run_id
        points = tracking(home).get_metric_history(train, "loss")
        curves.append({point.step: point.value for point in points})
    assert list(curves[0]) == [1, 2, 3, 4]
    assert curves[1] == pytest.approx(curves[0], rel=1e-4)
    assert list((home / "checkpoints").iterdir()) == []
