"""A real data set and a real pretrained model that nobody here made."""

import pytest

from flows.summary import load_run
from sft_core.config.file import parse_config
from sft_core.lineage.verification import verify
from tests.conftest import cached_stages, children, tracking

pytestmark = [pytest.mark.flow, pytest.mark.slow]


def test_medquad_on_stories260k(prefect_server, home, shared):
    """Question and answer by column mapping, no chat template, a context of 512 tokens."""
    from flows.sft import sft

    config = parse_config(
        {
            "name": "medquad",
            "ingest": {
                "sources": [
                    {
                        "path": str(shared / "data/medquad.jsonl.gz"),
                        "columns": {"prompt": "question", "completion": "answer"},
                        "licence": "CC-BY-4.0",
                        "consent": "not needed",
                        "max_rows": 400,
                    }
                ]
            },
            "model": {"model_name_or_path": str(shared / "models/stories260K")},
            "training": {
                "num_train_epochs": 1,
                "per_device_train_batch_size": 8,
                "learning_rate": 2e-3,
            },
            "evaluation": {"max_items": 24, "num_resamples": 200},
            "generation": {"max_new_tokens": 32},
            "retention": {
                "multiple_choice": [
                    {"kind": "pubmedqa", "path": f"{shared}/data/pubmedqa/ori_pqal.json"}
                    | {"max_items": 30}
                ],
                "max_preferences": 30,
            },
            "fairness": {
                "benchmarks": [
                    {"kind": "crows_pairs"}
                    | {"path": f"{shared}/data/crows_pairs/crows_pairs_anonymized.csv"},
                    {"kind": "winobias", "path": f"{shared}/data/winobias"},
                ],
                "max_pairs": 800,
            },
            "robustness": {"max_items": 8},
            "memorisation": {"max_rows": 40},
            "policy": {
                "max_choice_accuracy_loss": 0.1,
                "max_name_flip_excess": 0.1,
                "advisory": ["max_choice_accuracy_loss", "max_name_flip_excess"],
                "min_test_rows": 20,
                "max_contamination_rate": 0.5,  # the first pages share most paragraphs: taken out
                "max_truncated_rate": None,  # many answers are longer than 512 tokens
                "max_label_disparity": None,  # free text has no labels
                "max_subgroup_gap": None,  # the source names no groups
            },
        },
        "medquad",
    )
    run_id = sft(config)
    assert tracking(home).get_run(run_id).info.status == "FINISHED"
    stages = children(home, run_id)
    metrics = stages["evaluate"].data.metrics
    assert metrics["tuned_loss"] < metrics["base_loss"]
    assert metrics["loss_gain_low"] > 0
    assert 0 < stages["tokenize"].data.metrics["truncated_rate"] < 1
    assert cached_stages(home, run_id) == set()
    gates = {gate.metric: gate.verdict for _, gate in load_run(run_id).gates}
    assert gates["loss_gain"] == "pass"
    assert gates["bias_shift"] == gates["category_shift"] == "pass"
    assert stages["fairness"].data.metrics["bias_measurable"] == 1.0
    for source in ("bundled", "crows_pairs", "winobias"):
        assert f"{source}_shift_low" in stages["fairness"].data.metrics
    # a storyteller cannot answer medical questions, and the questions here name no first names
    assert gates["choice_accuracy_loss"] == gates["name_flip_excess"] == "not measured"
    assert list(verify(run_id))
    card = (home / "runs" / run_id / "README.md").read_text()
    assert "not measured" in card
