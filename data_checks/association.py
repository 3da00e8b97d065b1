"""What goes together with the mention of a group: tests and scores over counts.

An association is a fact about the data, not a verdict: many medical ones are legitimate. All
functions take counts, so that rows stream past and memory does not grow with them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

SIGNIFICANCE = 0.05
"""Family-wise error rate of disparities, and false discovery rate of words."""
MIN_WORD_ROWS = 5
"""Words and labels in fewer rows are not shown: a rare one may be a name."""

_POWER = 0.8
_PRIOR_WORDS = 1_000.0
_CELLS_A_CHUNK = 1 << 21
_ROWS_A_VALUE = 100  # dealing a row takes a hundredth of drawing a count


def rate_difference_p(count_a: int, rows_a: int, count_b: int, rows_b: int) -> float:
    """Two-sided p-value of the difference of two rates, over all permutations of the rows.

    The rows of a label, dealt at random to two groups of these sizes, follow the hypergeometric
    law, so that no permutation needs to be drawn: the value is exact. 1.0 without rows.

    Source: Fisher 1935, "The design of experiments" (permutation of two samples); the statistic is
    the absolute difference of rates.
    """
    total = count_a + count_b
    if rows_a == 0 or rows_b == 0:
        return 1.0
    possible = np.arange(max(0, total - rows_b), min(total, rows_a) + 1)
    differences = np.abs(possible / rows_a - (total - possible) / rows_b)
    observed = abs(count_a / rows_a - count_b / rows_b)
    chance = stats.hypergeom.pmf(possible, rows_a + rows_b, total, rows_a)
    return float(min(1.0, chance[differences >= observed - 1e-12].sum()))


def mean_difference_p(
    values_a: Mapping[int, int],
    values_b: Mapping[int, int],
    num_permutations: int,
    rng: np.random.Generator,
) -> float:
    """Two-sided p-value of the difference of two means, from histograms (value to rows).

    A permutation deals the pooled values to two groups of the old sizes; with many rows it is drawn
    as how many of each value the first group gets, which is the same in law and costs distinct
    values instead of rows. The value is (1 + permutations at least as extreme) /
    (1 + permutations); 1.0 where a group is empty.

    Source: Phipson and Smyth 2010, "Permutation p-values should never be zero".
    """
    values = np.array(sorted({*values_a, *values_b}), np.int64)
    in_a = np.array([values_a.get(v, 0) for v in values.tolist()], np.int64)
    pooled = in_a + np.array([values_b.get(v, 0) for v in values.tolist()], np.int64)
    rows_a, rows = int(in_a.sum()), int(pooled.sum())
    if rows_a in (0, rows):
        return 1.0
    center = rows_a * float(pooled @ values) / rows
    observed = abs(float(in_a @ values) - center)
    extreme = 0
    chunk = max(1, _CELLS_A_CHUNK // values.size)
    method: Literal["count", "marginals"] = (
        "count" if rows < _ROWS_A_VALUE * values.size else "marginals"
    )
    for start in range(0, num_permutations, chunk):
        size = min(chunk, num_permutations - start)
        dealt = rng.multivariate_hypergeometric(pooled, rows_a, size, method=method)
        extreme += int((np.abs(dealt @ values - center) >= observed - 1e-6).sum())
    return (1 + extreme) / (1 + num_permutations)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values that control the family-wise error rate; empty for none.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    adjusted = [1.0] * len(p_values)
    largest = 0.0
    for rank, position in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[position]))
        adjusted[position] = largest
    return adjusted


def detectable_difference(rate: float, rows_a: int, rows_b: int, num_comparisons: int) -> float:
    """Difference of rates that would be found with probability 0.8, by the normal approximation.

    The level is Bonferroni's, the strictest that Holm's procedure applies.
    """
    level = stats.norm.ppf(1 - SIGNIFICANCE / (2 * num_comparisons)) + stats.norm.ppf(_POWER)
    return float(level * math.sqrt(rate * (1 - rate) * (1 / rows_a + 1 / rows_b)))


@dataclass(frozen=True, slots=True)
class WordScore:
    """A word more common with one group than with the others."""

    word: str
    rows: int
    rows_elsewhere: int
    log_odds: float
    z: float
    q: float
    """Least false discovery rate at which the word is found (Benjamini and Hochberg 1995)."""


def weighted_log_odds(
    here: Counter[str], elsewhere: Counter[str]
) -> dict[str, tuple[float, float]]:
    """Log-odds ratio of each word of `here` and its z-score, shrunk by a Dirichlet prior.

    The prior is the words of both sides together, scaled to 1,000 words. Empty where a side is,
    and where both know one and the same word only.

    Source: Monroe, Colaresi and Quinn 2008, "Fightin' words: lexical feature selection and
    evaluation for identifying the content of political conflict" (informative Dirichlet prior).
    """
    total_here, total_elsewhere = here.total(), elsewhere.total()
    if total_here == 0 or total_elsewhere == 0 or len(here | elsewhere) == 1:
        return {}
    scale = _PRIOR_WORDS / (total_here + total_elsewhere)
    scores: dict[str, tuple[float, float]] = {}
    for word, count in here.items():
        prior = scale * (count + elsewhere[word])
        y_here, y_elsewhere = count + prior, elsewhere[word] + prior
        odds_here = y_here / (total_here + _PRIOR_WORDS - y_here)
        odds_elsewhere = y_elsewhere / (total_elsewhere + _PRIOR_WORDS - y_elsewhere)
        delta = math.log(odds_here / odds_elsewhere)
        scores[word] = (delta, delta / math.sqrt(1 / y_here + 1 / y_elsewhere))
    return scores


def top_words(
    here: Counter[str], elsewhere: Counter[str], left_out: Collection[str], limit: int
) -> list[WordScore]:
    """Words most associated with one side, by z-score, at a false discovery rate of 0.05.

    Counts are rows with the word. Words in fewer than five rows, with a digit, of one letter, and
    those left out (the group's own terms) are neither tested nor shown.
    """
    scores = {
        word: score
        for word, score in weighted_log_odds(here, elsewhere).items()
        if here[word] >= MIN_WORD_ROWS
        and len(word) > 1
        and word not in left_out
        and not any(map(str.isdigit, word))
    }
    if not scores:
        return []
    rates = stats.false_discovery_control(stats.norm.sf([z for _, z in scores.values()]))
    found = [
        WordScore(word, here[word], elsewhere[word], delta, z, q)
        for (word, (delta, z)), q in zip(scores.items(), rates.tolist(), strict=True)
        if q <= SIGNIFICANCE
    ]
    return sorted(found, key=lambda score: (-score.z, score.word))[:limit]
