"""Base against tuned on the same held-out items: one model, its adapter off and on.

`compare` measures with the model; `summary` turns the evidence into numbers and needs no model.
Nothing is sampled: greedy answers, and likelihoods of given text.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sft_core.config import EvaluationConfig
from sft_core.errors import DataError
from sft_core.evaluation.bias_probe import Pair, ProbeScores, load_pairs, probe
from sft_core.evaluation.generation import context_length, fit_prompts, generate, stop_ids
from sft_core.evaluation.likelihood import (
    Likelihood,
    label_likelihood,
    load_texts,
    text_likelihood,
)
from sft_core.evaluation.metrics import score_texts
from sft_core.evaluation.subgroups import PREFIX
from sft_core.evaluation.summary import summarize
from sft_core.reports import Table


@dataclass(frozen=True, slots=True)
class Item:
    """One held-out row, ready for the model.

    `groups` holds the row's value for each subgroup column, None where it has none. Items of one
    `cluster` (near-duplicates) are resampled together; an empty one stands alone.
    """

    row: int
    row_id: str
    prompt_ids: list[int]
    input_ids: list[int]
    labels: list[int]
    reference: str
    groups: dict[str, str | None] = field(default_factory=dict)
    cluster: str = ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was found, and what it was found from."""

    metrics: dict[str, float]
    not_measured: dict[str, str]
    """Metric that has no value, and why."""
    tables: dict[str, Table]
    evidence: dict[str, pa.Table]
    """Scores per item, line and pair, without text: `summarize` finds the same in it again."""
    predictions: list[dict[str, Any]]
    """`row`, `base` and `tuned` answer as text, which may repeat record text: quarantine it."""


@dataclass(frozen=True, slots=True)
class _Measured:
    """One model on everything."""

    answers: list[list[int]]
    texts: list[str]
    scores: dict[str, list[float]]
    held_out: Likelihood
    retention: npt.NDArray[np.float64]
    probe: ProbeScores


def compare(
    model: Any,
    tokenizer: Any,
    items: Sequence[Item],
    config: EvaluationConfig,
    *,
    seed: int,
    eos_ids: Collection[int] = (),
) -> Comparison:
    """Measure a `PeftModel` with its adapter off (base) and on (tuned).

    Of more than `config.max_items` items the first by row id are taken, which is a fixed random
    sample. `eos_ids` are tokens that end an answer besides those that the tokenizer and the model
    name. Puts the model in eval mode.

    Raises:
        ConfigError: `evaluation.max_new_tokens` fills the context, or the retention texts cannot be
            read.
        DataError: there are no items.
    """
    chosen = sorted(items, key=lambda item: (item.row_id, item.row))[: config.max_items]
    if not chosen:
        raise DataError("evaluate: 0 held-out items, at least 1 is needed. Raise split.test_rate.")
    lines = load_texts(config.retention_texts)
    pairs = load_pairs()
    run = partial(
        _measure,
        model,
        tokenizer,
        chosen,
        lines,
        pairs,
        config,
        seed=seed,
        eos_ids={*eos_ids, *stop_ids(model, tokenizer)},
    )
    with model.disable_adapter():
        base = run()
    tuned = run()
    evidence = {
        "items": _items_table(model, chosen, base, tuned, config.max_new_tokens),
        "retention": pa.table(
            {
                "line": range(len(lines)),
                "characters": [len(line) for line in lines],
                "base_nll": base.retention,
                "tuned_nll": tuned.retention,
            }
        ),
        "bias_probe": _probe_table(pairs, base.probe, tuned.probe),
    }
    findings = summarize(evidence, num_resamples=config.num_resamples, seed=seed)
    return Comparison(
        findings.metrics,
        findings.not_measured,
        findings.tables,
        evidence,
        [
            {"row": item.row, "base": b, "tuned": t}
            for item, b, t in zip(chosen, base.texts, tuned.texts, strict=True)
        ],
    )


def _measure(
    model: Any,
    tokenizer: Any,
    items: Sequence[Item],
    lines: Sequence[str],
    pairs: Sequence[Pair],
    config: EvaluationConfig,
    *,
    seed: int,
    eos_ids: Collection[int],
) -> _Measured:
    context = context_length(model)
    prompts, _ = fit_prompts([i.prompt_ids for i in items], context, config.max_new_tokens)
    answers = generate(
        model,
        prompts,
        pad_id=tokenizer.pad_token_id or 0,
        eos_ids=eos_ids,
        max_new_tokens=config.max_new_tokens,
        batch_size=config.batch_size,
    )
    texts = [tokenizer.decode(a, skip_special_tokens=True) for a in answers]

    def encode(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    prefix = [i for i in (tokenizer.bos_token_id, tokenizer.eos_token_id) if i is not None][:1]
    return _Measured(
        answers,
        texts,
        score_texts(texts, [i.reference for i in items]),
        label_likelihood(model, [i.input_ids for i in items], [i.labels for i in items]),
        text_likelihood(model, [encode(line) for line in lines], prefix, context).nll,
        probe(model, pairs, encode, prefix, seed=seed),
    )


def _items_table(
    model: Any, items: Sequence[Item], base: _Measured, tuned: _Measured, max_new_tokens: int
) -> pa.Table:
    room = (context_length(model) or 1 << 30) - max_new_tokens
    columns: dict[str, Any] = {
        "row": [i.row for i in items],
        "row_id": [i.row_id for i in items],
        "cluster": [i.cluster or f"row {i.row}" for i in items],
        "prompt_cut": [len(i.prompt_ids) > room for i in items],
        "label_tokens": base.held_out.num_tokens,
    }
    for side, measured in (("base", base), ("tuned", tuned)):
        for name, scores in measured.scores.items():
            columns[f"{side}_{name}"] = scores
        columns[f"{side}_nll"] = measured.held_out.nll
        columns[f"{side}_answer_tokens"] = [len(a) for a in measured.answers]
        columns[f"{side}_ended"] = [len(a) < max_new_tokens for a in measured.answers]
    for name in sorted({name for i in items for name in i.groups}):
        values = [i.groups.get(name) for i in items]
        columns[f"{PREFIX}{name}"] = pa.array(values, pa.string())
    return pa.table(columns)


def _probe_table(pairs: Sequence[Pair], base: ProbeScores, tuned: ProbeScores) -> pa.Table:
    columns: dict[str, Any] = {
        "category": [p.category for p in pairs],
        "template": [p.template for p in pairs],
    }
    for side, probed in (("base", base), ("tuned", tuned)):
        columns |= {f"{side}_{name}": values for name, values in asdict(probed).items()}
    return pa.table(columns)
