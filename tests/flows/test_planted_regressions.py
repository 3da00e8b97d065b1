"""What went wrong in training is caught by the gate that is there for it.

The clean demo passes the same gates: `test_demo`. Skewed labels are caught before any training:
`test_cli`.
"""

import pytest

from examples.triage.train_base import CHAT_TEMPLATE
from flows.summary import load_run
from sft_core.config.file import load_config
from sft_core.errors import GateError
from tests.conftest import BRIEF, ROOT, change

pytestmark = [pytest.mark.flow, pytest.mark.slow]


@pytest.fixture
def gates(prefect_server, home, tmp_path, monkeypatch):
    """The verdicts of a run on a few of the demo's rows, by metric."""
    from flows.sft import sft

    rows = (ROOT / "examples/triage/data/referrals.jsonl").read_text().splitlines(keepends=True)
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(rows[:150]))
    monkeypatch.chdir(ROOT)
    demo = load_config(ROOT / "examples/triage/demo.yaml")
    few = change(
        demo,
        ingest={"sources": [demo.ingest.sources[0].model_dump() | {"path": str(data)}]},
        split={"test_rate": 0.5},
        fairness=BRIEF["fairness"],
        robustness={"max_items": 1},
        memorisation={"max_rows": 12, "num_candidates": 63},
        policy={"min_primary_gain": 0.2},
    )

    def run(**sections):
        with pytest.raises(GateError) as ended:
            sft(change(few, **sections))
        return {gate.metric: gate.verdict for _, gate in load_run(ended.value.run_id).gates}

    return run


def test_too_many_epochs_forget_and_are_too_sure(gates):
    found = gates(training={"num_train_epochs": 28.0, "learning_rate": 8e-3})
    assert found["primary_gain"] == "pass"
    assert found["retention_loss"] == "fail"
    assert found["tuned_overconfidence"] == "fail"


def test_canaries_that_are_planted_too_often_are_learned_by_heart(gates):
    found = gates(
        memorisation={"num_canaries": 8, "canary_repeats": 16},
        training={"max_steps": 60},
        policy={"max_canary_exposure": 4.0},
    )
    assert found["canary_exposure"] == "fail"


def test_a_template_that_loses_the_note_teaches_nothing(gates, tmp_path):
    broken = tmp_path / "broken.jinja"
    said, lost = "{% else %}{{ message['content'] + ", "{% else %}{{ message['content'][:12] + "
    assert said in CHAT_TEMPLATE
    broken.write_text(CHAT_TEMPLATE.replace(said, lost))
    found = gates(tokenization={"chat_template": str(broken)}, training={"max_steps": 40})
    assert found["primary_gain"] == "fail"
