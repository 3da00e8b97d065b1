"""Exact and permutation tests over counts, and families of comparisons.

All functions take counts, so that rows stream past and memory does not grow with them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from sft_core.reports import Table

SIGNIFICANCE = 0.05
"""Family-wise error rate of disparities, and false discovery rate of words."""
MAX_TABLE_ROWS = 50

_POWER = 0.8
_CELLS_A_CHUNK = 1 << 21
_ROWS_A_VALUE = 100  # dealing a row takes a hundredth of drawing a count


def share_p(count: int, rows: int, reference: float) -> float:
    """Two-sided exact p-value of a share against a reference share; 1.0 without rows.

    Source: Clopper and Pearson 1934 (exact binomial law); the two-sided value sums all outcomes
    that are no likelier than the one found.
    """
    return float(stats.binomtest(count, rows, reference).pvalue) if rows else 1.0


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


def detectable_difference(variance: float, rows: Sequence[int], num_comparisons: int) -> float:
    """Difference of means or rates that would be found with probability 0.8 (normal approximation).

    `rows` are the sizes of the samples: two, or one that is held against a fixed reference. The
    level is Bonferroni's, the strictest that Holm's procedure applies.
    """
    level = stats.norm.ppf(1 - SIGNIFICANCE / (2 * num_comparisons)) + stats.norm.ppf(_POWER)
    return float(level * math.sqrt(variance * sum(1 / each for each in rows)))


@dataclass(frozen=True, slots=True)
class Comparison:
    """A value of one group beside a reference or another group's; `key` begins its table row."""

    key: tuple[str, ...]
    value: float
    other: float
    p: float
    detectable: float


@dataclass(frozen=True, slots=True)
class Disparity:
    """A family of comparisons, corrected by Holm.

    `significant` is the largest absolute difference among those significant at 0.05, 0.0 when none
    is; `largest` is the largest whatever its p-value.
    """

    significant: float
    largest: float
    table: Table


def disparity(
    comparisons: Sequence[Comparison],
    columns: tuple[str, ...],
    values: tuple[str, str] = ("value", "other value"),
) -> Disparity:
    """Judge one or more comparisons; the table has the most significant first."""
    adjusted = holm([each.p for each in comparisons])
    differences = [each.value - each.other for each in comparisons]
    ranked = sorted(
        range(len(comparisons)),
        key=lambda k: (adjusted[k], -abs(differences[k]), comparisons[k].key),
    )
    return Disparity(
        significant=max(
            (abs(d) for d, p in zip(differences, adjusted, strict=True) if p <= SIGNIFICANCE),
            default=0.0,
        ),
        largest=max(map(abs, differences)),
        table=Table(
            columns=(*columns, *values, "difference", "detectable difference", "p (Holm)"),
            rows=tuple(
                (
                    *comparisons[k].key,
                    comparisons[k].value,
                    comparisons[k].other,
                    differences[k],
                    comparisons[k].detectable,
                    adjusted[k],
                )
                for k in ranked[:MAX_TABLE_ROWS]
            ),
        ),
    )
