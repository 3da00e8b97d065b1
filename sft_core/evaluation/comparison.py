"""Base against tuned on the same held-out items.

`compare` measures with the model; `summary` turns the evidence into numbers and needs no model.
Nothing is sampled: greedy answers, and likelihoods of given text.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sft_core.config import EvaluationConfig
from sft_core.errors import DataError
from sft_core.evaluation.bias_probe import Pair, ProbeScores, load_pairs, probe
from sft_core.evaluation.generation import (
    context_length,
    fit_prompts,
    generate,
    prompt_room,
    stop_ids,
)
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
from sft_core.tokenization import start_ids


@dataclass(frozen=True, slots=True)
class Item:
    """One held-out row, ready for the model.

    `prompt_ids` are empty where there is nothing to answer (plain text): such an item has a
    likelihood and no answer. `groups` holds the row's value for each subgroup column, None where it
    has none. Items of one `cluster` (near-duplicates) are resampled together; with an empty one,
    those of one row.
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
    tuned_model: Any,
    tokenizer: Any,
    items: Sequence[Item],
    config: EvaluationConfig,
    *,
    base: AbstractContextManager[Any],
    seed: int,
    eos_ids: Collection[int] = (),
) -> Comparison:
    """Measure a tuned model and the one that `base` gives, such as `base_view` of it.

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
        tokenizer,
        chosen,
        lines,
        pairs,
        config,
        seed=seed,
        room=prompt_room(tuned_model, config.max_new_tokens),
        context=context_length(tuned_model),
        eos_ids={*eos_ids, *stop_ids(tuned_model, tokenizer)},
    )
    with base as base_model:
        before = run(base_model)
    after = run(tuned_model)
    room = prompt_room(tuned_model, config.max_new_tokens)
    evidence = {
        "items": _items_table(chosen, before, after, config.max_new_tokens, room),
        "retention": pa.table(
            {
                "line": range(len(lines)),
                "characters": [len(line) for line in lines],
                "base_nll": before.retention,
                "tuned_nll": after.retention,
            }
        ),
        "bias_probe": _probe_table(pairs, before.probe, after.probe),
    }
    findings = summarize(evidence, num_resamples=config.num_resamples, seed=seed)
    return Comparison(
        findings.metrics,
        findings.not_measured,
        findings.tables,
        evidence,
        [
            {"row": item.row, "base": b, "tuned": t}
            for item, b, t in zip(chosen, before.texts, after.texts, strict=True)
        ],
    )


def _measure(
    tokenizer: Any,
    items: Sequence[Item],
    lines: Sequence[str],
    pairs: Sequence[Pair],
    config: EvaluationConfig,
    model: Any,
    *,
    seed: int,
    room: int | None,
    context: int | None,
    eos_ids: Collection[int],
) -> _Measured:
    asked = [n for n, item in enumerate(items) if item.prompt_ids]
    prompts, _ = fit_prompts([items[n].prompt_ids for n in asked], room)
    found = generate(
        model,
        prompts,
        pad_id=tokenizer.pad_token_id or 0,
        eos_ids=eos_ids,
        max_new_tokens=config.max_new_tokens,
        batch_size=config.batch_size,
    )
    answers: list[list[int]] = [[] for _ in items]
    for n, answer in zip(asked, found, strict=True):
        answers[n] = answer
    texts = [tokenizer.decode(a, skip_special_tokens=True) for a in answers]
    scores = score_texts(texts, [i.reference for i in items])

    def encode(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    prefix = start_ids(tokenizer)
    return _Measured(
        answers,
        texts,
        {
            name: [s if i.prompt_ids else math.nan for s, i in zip(each, items, strict=True)]
            for name, each in scores.items()
        },
        label_likelihood(model, [i.input_ids for i in items], [i.labels for i in items]),
        text_likelihood(model, [encode(line) for line in lines], prefix, context).nll,
        probe(model, pairs, encode, prefix, seed=seed),
    )


def _items_table(
    items: Sequence[Item],
    base: _Measured,
    tuned: _Measured,
    max_new_tokens: int,
    room: int | None,
) -> pa.Table:
    columns: dict[str, Any] = {
        "row": [i.row for i in items],
        "row_id": [i.row_id for i in items],
        "cluster": [i.cluster or f"row {i.row}" for i in items],
        "prompt_cut": [room is not None and len(i.prompt_ids) > room for i in items],
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
