from __future__ import annotations

import math
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from peft import LoraConfig, get_peft_model

from sft_core.config import EvaluationConfig, ModelConfig, PolicyConfig
from sft_core.errors import ConfigError, DataError
from sft_core.evaluation.comparison import Comparison, Item, compare
from sft_core.evaluation.summary import summarize
from sft_core.reports import StageReport
from sft_core.training.adapters import base_view

CONFIG = EvaluationConfig(max_new_tokens=12, num_resamples=200, batch_size=16)


def item(row: int, tokenizer: Any, answer: str) -> Item:
    prompt = [0, *tokenizer(f"Q{row}:")["input_ids"]]
    target = [*tokenizer(answer)["input_ids"], tokenizer.eos_token_id]
    return Item(
        row=row,
        row_id=f"{row:064x}",
        prompt_ids=prompt,
        input_ids=prompt + target,
        labels=[-100] * len(prompt) + target,
        reference=answer,
        groups={"sex": "fm"[row % 2], "site": "north" if row < 10 else None},
    )


@pytest.fixture
def items(tokenizer: Any) -> list[Item]:
    return [item(row, tokenizer, "yes" if row % 2 else "no") for row in range(44)]


@pytest.fixture
def peft_model(model: Any) -> Any:
    torch.manual_seed(1)
    return get_peft_model(
        model, LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM")
    )


def base_of(peft_model: Any) -> AbstractContextManager[Any]:
    return base_view(peft_model, Path("not read"), ModelConfig())


def train(peft_model: Any, items: list[Item], steps: int) -> Any:
    """A few plain steps, enough to learn to answer."""
    optimizer = torch.optim.Adam([p for p in peft_model.parameters() if p.requires_grad], lr=0.02)
    width = max(len(i.input_ids) for i in items)
    ids = torch.tensor([i.input_ids + [2] * (width - len(i.input_ids)) for i in items])
    labels = torch.tensor([i.labels + [-100] * (width - len(i.labels)) for i in items])
    for _ in range(steps):
        optimizer.zero_grad()
        peft_model(ids, labels=labels).loss.backward()
        optimizer.step()
    return peft_model


def test_an_untrained_adapter_changes_nothing(
    peft_model: Any, tokenizer: Any, items: list[Item]
) -> None:
    found = compare(peft_model, tokenizer, items, CONFIG, base=base_of(peft_model), seed=0)
    metrics = found.metrics
    assert metrics["num_items"] == 44
    for name in ("exact_match_gain", "rouge_l_gain", "chrf_gain", "loss_gain", "retention_loss"):
        assert metrics[name] == pytest.approx(0.0, abs=1e-6)
        assert metrics[f"{name}_low"] <= 0.0 <= metrics[f"{name}_high"]
    assert metrics["subgroup_gap"] == 0.0
    assert "not measurable" in found.not_measured["bias_shift"]
    assert "bias_shift" not in metrics


def test_training_shows_as_gain_and_skew_as_subgroup_gap(
    peft_model: Any, tokenizer: Any, items: list[Item]
) -> None:
    women = [i for i in items if i.groups["sex"] == "f"]
    before = compare(peft_model, tokenizer, items, CONFIG, base=base_of(peft_model), seed=0)
    found = compare(
        train(peft_model, women, 60), tokenizer, items, CONFIG, base=base_of(peft_model), seed=0
    )
    metrics = found.metrics
    # the adapter is all that was trained: the base reads the same as before
    assert metrics["base_loss"] == before.metrics["base_loss"]
    assert found.evidence["items"]["base_nll"] == before.evidence["items"]["base_nll"]
    assert metrics["tuned_exact_match"] == pytest.approx(0.5, abs=0.03)
    # "no" is learnt for women and said to men as well: 1.0 against 0.0
    assert metrics["subgroup_gap"] == metrics["max_subgroup_difference"] >= 0.9
    assert found.tables["subgroup_gaps"].rows[0][:4] == ("sex", metrics["subgroup_gap"], "f", "m")
    assert metrics["exact_match_gain_low"] > 0.3
    groups = [row[:3] for row in found.tables["subgroups"].rows]
    assert groups == [
        ("sex", "f", 22),
        ("sex", "m", 22),
        ("site", "north", 10),
        ("site", "not stated", 34),
    ]


def test_the_summary_follows_from_the_evidence_alone(
    peft_model: Any, tokenizer: Any, items: list[Item], tmp_path: Any
) -> None:
    found = compare(peft_model, tokenizer, items, CONFIG, base=base_of(peft_model), seed=0)
    read = {}
    for name, table in found.evidence.items():
        pq.write_table(table, tmp_path / f"{name}.parquet")
        read[name] = pq.read_table(tmp_path / f"{name}.parquet")
    again = summarize(read, num_resamples=CONFIG.num_resamples, seed=0)
    assert (again.metrics, again.tables) == (found.metrics, found.tables)


def test_same_inputs_same_report_in_any_order(
    peft_model: Any, tokenizer: Any, items: list[Item]
) -> None:
    first = compare(peft_model, tokenizer, items, CONFIG, base=base_of(peft_model), seed=0)
    second = compare(peft_model, tokenizer, items[::-1], CONFIG, base=base_of(peft_model), seed=0)
    assert report(first).sha256 == report(second).sha256
    assert first.predictions == second.predictions


def report(found: Comparison) -> StageReport:
    return StageReport(
        stage="evaluate",
        metrics=found.metrics,
        not_measured=found.not_measured,
        tables=found.tables,
    )


def test_every_metric_that_a_gate_reads_is_there_or_explained(
    peft_model: Any, tokenizer: Any, items: list[Item]
) -> None:
    found = compare(peft_model, tokenizer, items, CONFIG, base=base_of(peft_model), seed=0)
    gates = {
        "min_loss_gain": "loss_gain_low",
        "min_exact_match_gain": "exact_match_gain_low",
        "max_subgroup_gap": "subgroup_gap",
        "max_retention_loss": "retention_loss",
        "max_bias_shift": "bias_shift",
    }
    assert set(gates) <= set(PolicyConfig.model_fields)
    for metric in gates.values():
        assert (metric in found.metrics) != (metric in found.not_measured)
    assert all(math.isfinite(v) for v in found.metrics.values())


def test_the_evidence_holds_no_text(peft_model: Any, tokenizer: Any, items: list[Item]) -> None:
    found = compare(peft_model, tokenizer, items, CONFIG, base=base_of(peft_model), seed=0)
    texts = {
        c.name
        for table in found.evidence.values()
        for c in table.schema
        if pa.types.is_string(c.type)
    }
    assert texts == {"row_id", "cluster", "group:sex", "group:site", "category", "template"}
    assert set(found.predictions[0]) == {"row", "base", "tuned"}


def test_a_diverged_model_is_not_measured_and_never_nan(
    peft_model: Any, tokenizer: Any, items: list[Item]
) -> None:
    with torch.no_grad():
        for name, weights in peft_model.named_parameters():
            if "lora_B" in name:
                weights.fill_(float("nan"))
    found = compare(peft_model, tokenizer, items, CONFIG, base=base_of(peft_model), seed=0)
    assert all(math.isfinite(v) for v in found.metrics.values())
    for name in ("tuned_loss", "loss_gain", "loss_gain_low", "retention_loss"):
        assert "not finite" in found.not_measured[name]
    assert "bias_shift" in found.not_measured
    assert "base_loss" in found.metrics
    report(found)


def test_max_items_takes_the_first_by_row_id_and_one_item_has_no_interval(
    peft_model: Any, tokenizer: Any, items: list[Item]
) -> None:
    one = CONFIG.model_copy(update={"max_items": 1})
    found = compare(peft_model, tokenizer, items[::-1], one, base=base_of(peft_model), seed=0)
    assert found.evidence["items"]["row"].to_pylist() == [0]
    assert "fewer than two" in found.not_measured["loss_gain_low"]
    assert "two groups" in found.not_measured["subgroup_gap"]


def test_long_prompts_are_cut_and_counted(
    peft_model: Any, tokenizer: Any, items: list[Item]
) -> None:
    long = replace(items[0], prompt_ids=items[0].prompt_ids * 40)
    found = compare(
        peft_model, tokenizer, [long, *items[1:4]], CONFIG, base=base_of(peft_model), seed=0
    )
    assert found.metrics["num_cut_prompts"] == 1


def test_clear_errors(peft_model: Any, tokenizer: Any, items: list[Item]) -> None:
    with pytest.raises(DataError, match="0 held-out items"):
        compare(peft_model, tokenizer, [], CONFIG, base=base_of(peft_model), seed=0)
    too_long = CONFIG.model_copy(update={"max_new_tokens": 128})
    with pytest.raises(ConfigError, match="no room for a prompt"):
        compare(peft_model, tokenizer, items, too_long, base=base_of(peft_model), seed=0)
