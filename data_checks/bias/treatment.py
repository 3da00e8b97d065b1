"""What the completions do by who is in the prompt: their labels, their length, refusals."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from data_checks.bias.association import MIN_WORD_ROWS
from data_checks.bias.cased_words import folded
from data_checks.bias.lexicon import Group
from data_checks.bias.significance import (
    SIGNIFICANCE,
    Comparison,
    detectable_difference,
    mean_difference_p,
    rate_difference_p,
)
from data_checks.text import normalise

MAX_LABELS = 50
"""Distinct lines of all completions up to which they count as labels."""
MIN_ROWS_A_LABEL = 5

_SHOWN_CHARS = 60
_OPENING_BYTES = 300

Pair = tuple[Group, Group]


@dataclass
class _Tally:
    """Counts over the rows whose prompt mentions one group of the dimension and no other."""

    rows: int = 0
    num_words: int = 0
    num_refusals: int = 0
    lengths: Counter[int] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)


class _Labels:
    """Collects the distinct lines of completions until there are too many to be labels."""

    def __init__(self) -> None:
        self.rows: Counter[str] = Counter()
        self.possible = True

    def of(self, completion: str) -> set[str]:
        if not self.possible:
            return set()
        lines = {line for line in map(normalise, completion.splitlines()) if line}
        self.rows.update(lines)
        self.possible = len(self.rows) <= MAX_LABELS
        return lines

    def compared(self) -> list[str]:
        """Labels of enough rows to be compared and shown; empty when completions are no labels."""
        if not self.possible or self.rows.total() < MIN_ROWS_A_LABEL * len(self.rows):
            return []
        return sorted(label for label, rows in self.rows.items() if rows >= MIN_WORD_ROWS)


class Treatment:
    """Tallies completions by the groups of their prompts, and compares the groups in pairs."""

    def __init__(self, groups: Sequence[Group], refusals: Sequence[str]) -> None:
        self._tallies = {group: _Tally() for group in groups}
        self._refusals = tuple(f"{opening} ".encode() for opening in refusals)
        self._labels = _Labels()

    def add(self, groups: Collection[Group], completion: str, cased: bytes, num_words: int) -> None:
        """Count a completion, also given as `cased_words`; `groups` are the prompt's, none or more.

        A completion counts for the list of labels even where the prompt mentions no group.
        """
        labels = self._labels.of(completion)
        if not groups:
            return
        refused = self._refuses(cased)
        for group in groups:
            tally = self._tallies[group]
            tally.rows += 1
            tally.num_words += num_words
            tally.num_refusals += refused
            tally.lengths[_rounded(num_words)] += 1
            tally.labels.update(labels)

    def _refuses(self, cased: bytes) -> bool:
        opening = b" ".join(folded(cased[:_OPENING_BYTES]).split()) + b" "
        return opening.startswith(self._refusals)

    def rows(self, group: Group) -> int:
        """Rows whose prompt mentions the group and no other of its dimension."""
        return self._tallies[group].rows

    def pairs(self, min_rows: int) -> list[Pair]:
        """Groups of one dimension that have enough rows each to be compared."""
        enough = [group for group, tally in self._tallies.items() if tally.rows >= min_rows]
        return [(a, b) for a, b in combinations(enough, 2) if a[0] == b[0]]

    def has_labels(self) -> bool:
        """Whether the completions are label-like: few distinct lines, each in several rows."""
        return bool(self._labels.compared())

    def labels(self, pairs: Sequence[Pair]) -> list[Comparison]:
        """Rates of each label, between the groups of each pair; empty without labels or pairs."""
        cells = [(a, b, label) for a, b in pairs for label in self._labels.compared()]
        return [
            self._rates(
                (a, b),
                (*a, b[1], label[:_SHOWN_CHARS]),
                (self._tallies[a].labels[label], self._tallies[b].labels[label]),
                len(cells),
            )
            for a, b, label in cells
        ]

    def refusals(self, pairs: Sequence[Pair]) -> list[Comparison]:
        """Rates of refusals, between the groups of each pair."""
        return [
            self._rates(
                (a, b),
                (*a, b[1]),
                (self._tallies[a].num_refusals, self._tallies[b].num_refusals),
                len(pairs),
            )
            for a, b in pairs
        ]

    def _rates(
        self, pair: Pair, key: tuple[str, ...], counts: tuple[int, int], num_comparisons: int
    ) -> Comparison:
        rows = [self._tallies[group].rows for group in pair]
        # Two successes and failures more (Agresti and Coull 1998): no rate is 0 or 1 for certain.
        pooled = (sum(counts) + 2) / (sum(rows) + 4)
        return Comparison(
            key=key,
            value=counts[0] / rows[0],
            other=counts[1] / rows[1],
            p=rate_difference_p(counts[0], rows[0], counts[1], rows[1]),
            detectable=detectable_difference(pooled * (1 - pooled), rows, num_comparisons),
        )

    def lengths(
        self, pairs: Sequence[Pair], num_permutations: int, rng: np.random.Generator
    ) -> list[Comparison]:
        """Mean words a completion, between the groups of each pair."""
        # Enough permutations that the smallest p-value can pass Holm's strictest level.
        num_permutations = max(num_permutations, math.ceil(2 * len(pairs) / SIGNIFICANCE))
        comparisons = []
        for a, b in pairs:
            left, right = self._tallies[a], self._tallies[b]
            rows = (left.rows, right.rows)
            variance = _variance(left.lengths + right.lengths)
            comparisons.append(
                Comparison(
                    key=(*a, b[1]),
                    value=left.num_words / left.rows,
                    other=right.num_words / right.rows,
                    p=mean_difference_p(left.lengths, right.lengths, num_permutations, rng),
                    detectable=detectable_difference(variance, rows, len(pairs)),
                )
            )
        return comparisons


def _variance(histogram: Counter[int]) -> float:
    """From sums of integers, so that it does not depend on their order."""
    rows = histogram.total()
    total = sum(value * count for value, count in histogram.items())
    squares = sum(value * value * count for value, count in histogram.items())
    return (rows * squares - total * total) / rows**2


def _rounded(length: int) -> int:
    """Two significant digits, so that a histogram of lengths stays short."""
    return int(float(f"{length:.1e}"))
