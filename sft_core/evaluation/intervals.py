"""How sure a number is: bootstrap intervals and permutation tests.

All of them are seeded, vectorised in chunks (memory does not grow with the number of resamples)
and pair the items of two models: pass per-item differences. Where items come in clusters that
stand or fall together (near-duplicates, one template), whole clusters are resampled or flipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Values = Sequence[float] | npt.NDArray[Any]

_CHUNK = 1 << 20
"""Numbers drawn at once."""
_SLACK = 1e-12
"""Sums in another order differ in the last bits; a tie still counts as a tie."""


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and the ends of its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Gap:
    """The largest difference between group means, and how often chance makes one as large."""

    gap: float
    p_value: float
    highest: str
    lowest: str


def _by_cluster(values: Values, clusters: Sequence[str] | None) -> npt.NDArray[np.float64]:
    """Sum per cluster; without clusters every item is one."""
    array = np.asarray(values, dtype=np.float64)
    if clusters is None:
        return array
    _, index = np.unique(np.asarray(clusters, dtype=str), return_inverse=True)
    return np.bincount(index, array).astype(np.float64)


def ratio_interval(
    numerators: Values,
    denominators: Values,
    *,
    num_resamples: int,
    seed: int,
    clusters: Sequence[str] | None = None,
) -> Interval | None:
    """Percentile bootstrap of `sum(numerators) / sum(denominators)`, such as nats over tokens.

    None with fewer than two clusters, a zero denominator or a value that is not finite. If all
    items agree the interval has no width, whatever their number: it knows only what it has seen.

    Source: Efron and Tibshirani (1993), An Introduction to the Bootstrap, chapter 13.
    """
    top, bottom = _by_cluster(numerators, clusters), _by_cluster(denominators, clusters)
    size = len(top)
    if size < 2 or bottom.sum() <= 0 or not (np.isfinite(top).all() and np.isfinite(bottom).all()):
        return None
    rng = np.random.default_rng(seed)
    chunk = max(1, _CHUNK // size)
    ratios = np.empty(num_resamples)
    for start in range(0, num_resamples, chunk):
        drawn = rng.integers(size, size=(min(chunk, num_resamples - start), size))
        sums = bottom[drawn].sum(1)
        # A resample of nothing but empty items says nothing.
        ratios[start : start + chunk] = np.where(
            sums > 0, top[drawn].sum(1) / np.where(sums > 0, sums, 1.0), np.nan
        )
    low, high = np.nanpercentile(ratios, [2.5, 97.5])
    return Interval(float(top.sum() / bottom.sum()), float(low), float(high))


def mean_interval(
    values: Values, *, num_resamples: int, seed: int, clusters: Sequence[str] | None = None
) -> Interval | None:
    """Percentile bootstrap of the mean; None with fewer than two clusters.

    For a paired difference of two models pass the differences per item.
    """
    ones = np.ones(len(values))
    return ratio_interval(values, ones, num_resamples=num_resamples, seed=seed, clusters=clusters)


def sign_flip_test(
    values: Values,
    *,
    num_permutations: int,
    seed: int,
    clusters: Sequence[str] | None = None,
) -> float | None:
    """Two-sided p-value that the mean is zero, if each value could as well have the other sign.

    Exact (all sign patterns) where there are no more than `num_permutations` of them, else
    sampled with `(1 + count) / (1 + num_permutations)`. With k clusters no p-value is below
    `2 / 2**k`. None with fewer than two clusters.

    Source: Phipson and Smyth (2010), Permutation p-values should never be zero, section 4.
    """
    sums = _by_cluster(values, clusters)
    size = len(sums)
    if size < 2 or not np.isfinite(sums).all():
        return None
    limit = abs(sums.sum()) - _SLACK * (1.0 + np.abs(sums).sum())
    if size < 31 and 2**size <= num_permutations:
        patterns = (np.arange(2**size)[:, None] >> np.arange(size)) & 1
        return float(np.mean(np.abs((1 - 2 * patterns) @ sums) >= limit))
    rng = np.random.default_rng(seed)
    chunk = max(1, _CHUNK // size)
    count = 0
    for start in range(0, num_permutations, chunk):
        shape = (min(chunk, num_permutations - start), size)
        signs = 1 - 2 * rng.integers(2, size=shape, dtype=np.int8)
        count += int((np.abs(signs @ sums) >= limit).sum())
    return (1 + count) / (1 + num_permutations)


def gap_test(
    values: Values,
    groups: Sequence[str],
    *,
    num_permutations: int,
    seed: int,
    min_items: int = 20,
) -> Gap | None:
    """Largest difference between group means, against shuffling values over the groups.

    The null of the largest gap is used, so that many groups do not raise false alarms. Groups of
    fewer than `min_items` are left out; None with fewer than two groups.
    """
    names, index, counts = np.unique(
        np.asarray(groups, dtype=str), return_inverse=True, return_counts=True
    )
    large = np.flatnonzero(counts >= min_items)
    if len(large) < 2:
        return None
    kept = np.isin(index, large)
    array = np.asarray(values, dtype=np.float64)[kept]
    member = (index[kept][:, None] == large).astype(np.float64)  # (items, groups)
    means = (array @ member) / counts[large]
    gap = float(means.max() - means.min())
    rng = np.random.default_rng(seed)
    chunk = max(1, _CHUNK // len(array))
    count = 0
    for start in range(0, num_permutations, chunk):
        shape = (min(chunk, num_permutations - start), len(array))
        shuffled = rng.permuted(np.broadcast_to(array, shape), axis=1) @ member / counts[large]
        count += int((np.ptp(shuffled, axis=1) >= gap - _SLACK).sum())
    return Gap(
        gap,
        (1 + count) / (1 + num_permutations),
        str(names[large[means.argmax()]]),
        str(names[large[means.argmin()]]),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for their number; none is left out and none exceeds 1.

    Source: Holm (1979), A simple sequentially rejective multiple test procedure.
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted
