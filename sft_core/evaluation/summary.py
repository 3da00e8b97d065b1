"""From per-item evidence to numbers: no model is needed, so anybody can compute them again.

The evidence is what `comparison` measures, one table each:

- `items`: a held-out row with the scores of its base and tuned answer and likelihood, its cluster,
  and a column `group:NAME` for each subgroup that the config names
- `retention`: a line of general text with its characters and nats
- `bias_probe`: a pair of sentences with its log-likelihood ratios
"""

from __future__ import annotations

import math

import pyarrow as pa

from sft_core.evaluation.bias_probe import ProbeScores, bias_shift
from sft_core.evaluation.findings import Findings, cell, column, ends, likelihood
from sft_core.evaluation.intervals import Interval, mean_interval, ratio_interval
from sft_core.evaluation.likelihood import bits_per_character
from sft_core.evaluation.subgroups import add_subgroups
from sft_core.reports import Cell, Table

TEXT_LABELS = {"exact_match": "exact match", "rouge_l": "ROUGE-L", "chrf": "chrF"}

_RESULT_COLUMNS = ("metric", "base", "tuned", "gain", "95 % interval")
_BIAS_COLUMNS = ("category", "pairs", "base", "tuned", "shift", "95 % interval", "p (Holm)")


_NO_ANSWERS = "the rows are plain text, to which nothing is answered"


def summarize(evidence: dict[str, pa.Table], *, num_resamples: int, seed: int) -> Findings:
    """All that stage 10 says, from its evidence; equal input gives equal output.

    A gain is positive where the tuned model is better, also for loss, perplexity and bits.
    """
    findings = Findings()
    items = evidence["items"]
    findings.put("num_items", items.num_rows)
    findings.put("num_cut_prompts", float(column(items, "prompt_cut").sum()))
    for side in ("base", "tuned"):
        findings.put(f"{side}_unfinished_rate", 1.0 - float(column(items, f"{side}_ended").mean()))
    rows = _texts(findings, items, num_resamples, seed)
    rows += _loss(findings, items, num_resamples, seed)
    rows += _retention(findings, evidence["retention"], num_resamples, seed)
    findings.tables["results"] = Table(columns=_RESULT_COLUMNS, rows=tuple(rows))
    add_subgroups(findings, items, num_resamples=num_resamples, seed=seed)
    _bias(findings, evidence["bias_probe"], num_resamples, seed)
    return findings


def _texts(
    findings: Findings, items: pa.Table, num_resamples: int, seed: int
) -> list[tuple[Cell, ...]]:
    rows = []
    clusters = items["cluster"].to_pylist()
    for name, label in TEXT_LABELS.items():
        base, tuned = column(items, f"base_{name}"), column(items, f"tuned_{name}")
        gains = tuned - base
        gain = mean_interval(gains, num_resamples=num_resamples, seed=seed, clusters=clusters)
        findings.put(f"base_{name}", base.mean(), _NO_ANSWERS)
        findings.put(f"tuned_{name}", tuned.mean(), _NO_ANSWERS)
        findings.put_interval(f"{name}_gain", gains.mean(), gain)
        rows.append(_row(label, base.mean(), tuned.mean(), gains.mean(), gain))
    return rows


def _loss(
    findings: Findings, items: pa.Table, num_resamples: int, seed: int
) -> list[tuple[Cell, ...]]:
    base, tuned = likelihood(items, "base"), likelihood(items, "tuned")
    findings.put("num_label_tokens", float(base.num_tokens.sum()))
    for side, scores in (("base", base), ("tuned", tuned)):
        findings.put(f"{side}_loss", scores.loss)
        findings.put(f"{side}_perplexity", scores.perplexity)
    gain = ratio_interval(
        base.nll - tuned.nll,
        base.num_tokens,
        num_resamples=num_resamples,
        seed=seed,
        clusters=items["cluster"].to_pylist(),
    )
    findings.put_interval("loss_gain", base.loss - tuned.loss, gain)
    losses, perplexities = (base.loss, tuned.loss), (base.perplexity, tuned.perplexity)
    return [
        _row("loss (nats a token)", *losses, base.loss - tuned.loss, gain),
        _row("perplexity", *perplexities, base.perplexity - tuned.perplexity, None),
    ]


def _retention(
    findings: Findings, lines: pa.Table, num_resamples: int, seed: int
) -> list[tuple[Cell, ...]]:
    characters = column(lines, "characters")
    base_nll, tuned_nll = column(lines, "base_nll"), column(lines, "tuned_nll")
    base = bits_per_character(base_nll, characters)
    tuned = bits_per_character(tuned_nll, characters)
    findings.put("retention_base_bpc", base)
    findings.put("retention_tuned_bpc", tuned)
    bits = (tuned_nll - base_nll) / math.log(2)
    lost = ratio_interval(bits, characters, num_resamples=num_resamples, seed=seed)
    findings.put_interval("retention_loss", tuned - base, lost)
    gain = Interval(-lost.value, -lost.high, -lost.low) if lost else None
    return [_row("general text (bits a character)", base, tuned, base - tuned, gain)]


def _bias(findings: Findings, pairs: pa.Table, num_resamples: int, seed: int) -> None:
    scores = {
        side: ProbeScores(
            column(pairs, f"{side}_log_ratio"),
            column(pairs, f"{side}_fluent"),
            column(pairs, f"{side}_bits_per_character"),
        )
        for side in ("base", "tuned")
    }
    for side, probed in scores.items():
        findings.put(f"bias_probe_{side}_fluent_rate", float(probed.fluent.mean()))
        findings.put(f"bias_probe_{side}_bpc", float(probed.bits_per_character.mean()))
    found = bias_shift(
        pairs["category"].to_pylist(),
        pairs["template"].to_pylist(),
        scores["base"],
        scores["tuned"],
        num_resamples=num_resamples,
        seed=seed,
    )
    if found.not_measurable or found.shift is None or found.p_value is None:
        findings.not_measured["bias_shift"] = found.not_measurable or "fewer than two templates"
        return
    findings.put_interval("bias_shift", found.shift.value, found.shift)
    findings.put("bias_shift_p_value", found.p_value)
    rows = tuple(
        (
            c.category,
            c.num_pairs,
            cell(c.base),
            cell(c.tuned),
            cell(c.tuned - c.base),
            ends(c.shift),
            cell(c.p_value),
        )
        for c in found.categories
    )
    findings.tables["bias_probe"] = Table(columns=_BIAS_COLUMNS, rows=rows)


def _row(
    label: str, base: float, tuned: float, gain: float, interval: Interval | None
) -> tuple[Cell, ...]:
    return (label, cell(base), cell(tuned), cell(gain), ends(interval))
