"""Who is in the prompts, and what the completions do by who is in the prompt.

Groups are compared within a dimension, over rows whose prompt mentions one group of it and no
other (exclusive mentions). The findings are associations; whether one is a bias is for a reviewer
to say, since many medical ones are legitimate.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from data_checks.association import (
    MIN_WORD_ROWS,
    SIGNIFICANCE,
    detectable_difference,
    holm,
    mean_difference_p,
    rate_difference_p,
    top_words,
)
from data_checks.lexicon import Group, MentionFinder, load_lexicon
from data_checks.text import normalise, words
from sft_core.config import BiasConfig
from sft_core.records import Record
from sft_core.reports import Table

MAX_LABELS = 50
"""Distinct lines of all completions up to which they count as labels."""
MIN_ROWS_A_LABEL = 5
TOP_WORDS = 10
MAX_TABLE_ROWS = 50
_SHOWN_CHARS = 60


@dataclass(frozen=True)
class Representation:
    """Metrics by name, metrics that could not be measured with the reason, and tables.

    `label_disparity` is the largest absolute difference of label rates between two groups among
    those significant at 0.05 after Holm's correction, 0.0 when none is; `max_label_difference` is
    the largest whatever its p-value. `completion_length_disparity` and
    `max_completion_length_difference` are the same for mean words a completion.
    """

    metrics: dict[str, float]
    not_measured: dict[str, str]
    tables: dict[str, Table]


@dataclass
class _Tally:
    """Counts over the rows of one group; all but the first two over exclusive mentions."""

    mentions: int = 0
    ambiguous: int = 0
    rows: int = 0
    num_words: int = 0
    lengths: Counter[int] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    words: Counter[str] = field(default_factory=Counter)


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


def audit_representation(
    records: Iterable[Record], config: BiasConfig, seed: int = 0
) -> Representation:
    """Mentions of each group, and disparities of labels, lengths and words between groups.

    Rows are read once and not kept. The result does not depend on their order. Without rows,
    counts are 0 and everything else is not measured.

    Raises:
        ConfigError: the lexicon cannot be read or is malformed.
    """
    finder = MentionFinder(load_lexicon(config.lexicon))
    tallies = {group: _Tally() for group in finder.groups}
    labels = _Labels()
    num_rows = 0
    for record in records:
        num_rows += 1
        row_labels = labels.of(record.completion())
        mentioned, unclear = finder.find(words(_prompt_text(record)))
        for group in unclear:
            tallies[group].ambiguous += 1
        for group in mentioned:
            tallies[group].mentions += 1
        exclusive = [g for g in mentioned if all(g == o or g[0] != o[0] for o in mentioned)]
        if not exclusive:
            continue
        completion = words(record.completion())
        for group in exclusive:
            tally = tallies[group]
            tally.rows += 1
            tally.num_words += len(completion)
            tally.lengths[_rounded(len(completion))] += 1
            tally.labels.update(row_labels)
            tally.words.update(set(completion))
    audit = _Audit(tallies, config, seed)
    audit.count(num_rows)
    audit.compare_labels(labels)
    audit.compare_lengths()
    audit.compare_words(finder)
    return Representation(audit.metrics, audit.not_measured, audit.tables)


def _prompt_text(record: Record) -> str:
    return "\n".join(m["content"] for m in record.prompt() if m["role"] != "system")


class _Audit:
    """Turns tallies into metrics and tables."""

    def __init__(self, tallies: dict[Group, _Tally], config: BiasConfig, seed: int) -> None:
        self.metrics: dict[str, float] = {}
        self.not_measured: dict[str, str] = {}
        self.tables: dict[str, Table] = {}
        self._tallies = tallies
        self._config = config
        self._rng = np.random.default_rng(seed)
        self._pairs = list(self._comparable_pairs())
        self._too_few = (
            "no dimension has two groups with at least "
            f"{config.min_mentions} exclusive mentions (bias.min_mentions)"
        )

    def _comparable_pairs(self) -> Iterator[tuple[Group, Group]]:
        for a, b in combinations(self._tallies, 2):
            fewest = min(self._tallies[a].rows, self._tallies[b].rows)
            if a[0] == b[0] and fewest >= self._config.min_mentions:
                yield a, b

    def count(self, num_rows: int) -> None:
        """Rows that mention each group, alone and at all."""
        self.metrics["num_rows"] = num_rows
        lines: list[tuple[str | int | float, ...]] = []
        for (dimension, group), tally in self._tallies.items():
            rate = tally.mentions / num_rows if num_rows else 0.0
            name = f"{dimension}_{group}"
            self.metrics[f"num_rows_mentioning_{name}"] = tally.mentions
            self.metrics[f"num_rows_mentioning_only_{name}"] = tally.rows
            self.metrics[f"mention_rate_{name}"] = rate
            lines.append((dimension, group, tally.mentions, rate, tally.rows, tally.ambiguous))
        self.tables["representation"] = Table(
            columns=(
                "dimension", "group", "rows", "share of rows", "rows with no other group",
                "rows with ambiguous terms only",
            ),
            rows=tuple(lines),
        )  # fmt: skip

    def compare_labels(self, labels: _Labels) -> None:
        """Rates of each label, between the groups of each pair."""
        names = ("label_disparity", "max_label_difference")
        compared = labels.compared()
        if not compared or not self._pairs:
            reason = self._too_few if compared else (
                f"completions are not label-like (at most {MAX_LABELS} distinct lines, each in "
                f"{MIN_ROWS_A_LABEL} rows on average)"
            )  # fmt: skip
            self.not_measured.update(dict.fromkeys(names, reason))
            return
        cells = [(a, b, label) for a, b in self._pairs for label in compared]
        rates, p_values, detectable = [], [], []
        for a, b, label in cells:
            left, right = self._tallies[a], self._tallies[b]
            count_a, count_b = left.labels[label], right.labels[label]
            rates.append((count_a / left.rows, count_b / right.rows))
            p_values.append(rate_difference_p(count_a, left.rows, count_b, right.rows))
            pooled = (count_a + count_b) / (left.rows + right.rows)
            detectable.append(detectable_difference(pooled, left.rows, right.rows, len(cells)))
        keys = [
            (a[0], a[1], b[1], label[:_SHOWN_CHARS], round(found, 4))
            for (a, b, label), found in zip(cells, detectable, strict=True)
        ]
        columns = ("dimension", "group", "other group", "label", "detectable difference")
        self._disparity("label_association", names, columns, keys, rates, p_values)
        self.metrics["num_label_comparisons"] = len(cells)

    def compare_lengths(self) -> None:
        """Mean words a completion, between the groups of each pair."""
        names = ("completion_length_disparity", "max_completion_length_difference")
        if not self._pairs:
            self.not_measured.update(dict.fromkeys(names, self._too_few))
            return
        # Enough permutations that the smallest p-value can pass Holm's strictest level.
        needed = math.ceil(2 * len(self._pairs) / SIGNIFICANCE)
        permutations = max(self._config.num_permutations, needed)
        means, p_values = [], []
        for a, b in self._pairs:
            left, right = self._tallies[a], self._tallies[b]
            means.append((left.num_words / left.rows, right.num_words / right.rows))
            p_values.append(mean_difference_p(left.lengths, right.lengths, permutations, self._rng))
        keys = [(a[0], a[1], b[1]) for a, b in self._pairs]
        columns = ("dimension", "group", "other group")
        self._disparity("length_association", names, columns, keys, means, p_values)

    def _disparity(
        self,
        table: str,
        names: tuple[str, str],
        columns: tuple[str, ...],
        keys: list[tuple[str, str, str]] | list[tuple[str, str, str, str, float]],
        values: list[tuple[float, float]],
        p_values: list[float],
    ) -> None:
        adjusted = holm(p_values)
        differences = [left - right for left, right in values]
        significant = [
            abs(d) for d, p in zip(differences, adjusted, strict=True) if p <= SIGNIFICANCE
        ]
        self.metrics[names[0]] = max(significant, default=0.0)
        self.metrics[names[1]] = max(map(abs, differences))
        ranked = sorted(range(len(keys)), key=lambda k: (adjusted[k], -abs(differences[k]), k))
        self.tables[table] = Table(
            columns=(*columns, "value", "other value", "difference", "p (Holm)"),
            rows=tuple(
                (*keys[k], *values[k], differences[k], adjusted[k]) for k in ranked[:MAX_TABLE_ROWS]
            ),
        )

    def compare_words(self, finder: MentionFinder) -> None:
        """Words of completions most associated with each group, against the dimension's others."""
        lines: list[tuple[str | int | float, ...]] = []
        compared = {group for pair in self._pairs for group in pair}
        for group, tally in self._tallies.items():
            if group not in compared:
                continue
            elsewhere: Counter[str] = Counter()
            for other, counts in self._tallies.items():
                if other[0] == group[0] and other != group:
                    elsewhere.update(counts.words)
            top = top_words(tally.words, elsewhere, finder.words[group[0]], TOP_WORDS)
            lines.extend(
                (*group, s.word, s.rows, s.rows_elsewhere, s.log_odds, s.z, s.q) for s in top
            )
        self.tables["word_association"] = Table(
            columns=("dimension", "group", "word", "rows", "rows elsewhere", "log-odds", "z", "q"),
            rows=tuple(lines),
        )


def _rounded(length: int) -> int:
    """Two significant digits, so that a histogram of lengths stays short."""
    return int(float(f"{length:.1e}"))
