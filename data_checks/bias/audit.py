"""Who is in the prompts, and what goes together with whom: one pass over the rows.

Groups are compared within a dimension, over rows whose prompt mentions one group of it and no
other. The findings are associations; whether one is a bias is for a reviewer to say.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from data_checks.bias.association import PLACES, Association, Kind, associated_words
from data_checks.bias.cased_words import cased_words, folded
from data_checks.bias.counterfactual import Twins
from data_checks.bias.lexicon import (
    Group,
    WordList,
    load_clinical_terms,
    load_lexicon,
    load_occupations,
    load_refusals,
)
from data_checks.bias.mentions import MentionFinder
from data_checks.bias.representation import Mentions, declared_references, shares_against_references
from data_checks.bias.significance import Comparison, disparity
from data_checks.bias.treatment import MAX_LABELS, MIN_ROWS_A_LABEL, Treatment
from data_checks.bias.word_counts import WordCounts
from data_checks.text import batches
from sft_core.config import BiasConfig
from sft_core.records import Record
from sft_core.reports import Table

TOP_WORDS = 8
"""Words shown of each group and place."""


@dataclass(frozen=True, slots=True)
class GroupShare:
    """Rows that mention a group and no other of its dimension, and the share it should have."""

    group: Group
    rows: int
    reference: float | None


@dataclass(frozen=True)
class BiasAudit:
    """Metrics by name, metrics that could not be measured with the reason, and tables.

    Of each kind of disparity there are two metrics. `label_disparity` is the largest absolute
    difference of label rates between two groups among those significant at 0.05 after Holm's
    correction, 0.0 when none is; `max_label_difference` is the largest whatever its p-value. The
    same for `refusal`, `completion_length` (mean words) and `representation` (share of exclusive
    mentions, against the declared reference). `counterfactual_coverage_sex` is the share of prompts
    with one sex whose twin with the other is in the data.
    """

    metrics: dict[str, float]
    not_measured: dict[str, str]
    tables: dict[str, Table]
    shares: tuple[GroupShare, ...]
    associations: tuple[Association, ...]
    """All words found, by dimension, group, place and falling z; the tables have the first ones."""


def audit_bias(records: Iterable[Record], config: BiasConfig, seed: int = 0) -> BiasAudit:
    """Mentions of each group, and disparities of labels, refusals, lengths and words between them.

    Rows are read once and not kept, but for 8 bytes a row and dimension (counterfactual coverage).
    The result does not depend on their order. Without rows, counts are 0 and all else is not
    measured.

    Raises:
        ConfigError: a word list cannot be read or is malformed, or a reference names a group that
            the lexicon does not have.
    """
    audit = _Audit(config, seed)
    for rows, _ in batches((record, record.text()) for record in records):
        audit.add(rows)
    audit.count()
    audit.compare_representation()
    audit.compare_treatment()
    audit.compare_words()
    audit.count_twins()
    return BiasAudit(
        audit.metrics,
        audit.not_measured,
        audit.tables,
        tuple(audit.shares()),
        tuple(audit.associations),
    )


def _prompt_text(record: Record) -> str:
    """What the groups are looked for in: the prompt, or a plain text."""
    if record.is_plain_text:
        return record.text()
    return "\n".join(m["content"] for m in record.prompt() if m["role"] != "system")


def _answer(record: Record) -> str:
    return "" if record.is_plain_text else record.completion()


class _Audit:
    """Collects counts from batches of rows, then turns them into metrics and tables."""

    def __init__(self, config: BiasConfig, seed: int) -> None:
        self.metrics: dict[str, float] = {}
        self.not_measured: dict[str, str] = {}
        self.tables: dict[str, Table] = {}
        self.associations: list[Association] = []
        self._config = config
        self._rng = np.random.default_rng(seed)
        lexicon = load_lexicon(config.lexicon)
        self._references = declared_references(lexicon, config)
        self._lists: dict[Kind, WordList] = {
            "occupation": load_occupations(config.occupations),
            "clinical": load_clinical_terms(config.clinical_terms),
        }
        self._finder = MentionFinder(lexicon)
        self._groups = self._finder.groups
        self._number = {group: n for n, group in enumerate(self._groups)}
        self._mentions = Mentions(self._groups)
        self._treatment = Treatment(self._groups, load_refusals(config.refusals))
        self._twins = Twins(lexicon)
        self._has_answers = False
        self._counts = WordCounts(len(PLACES) * len(self._groups))

    def add(self, rows: Sequence[Record]) -> None:
        """Count a batch; only rows with exclusive mentions have their words counted."""
        prompts = [_prompt_text(record) for record in rows]
        self._has_answers |= any(not record.is_plain_text for record in rows)
        cased = [cased_words(prompt) for prompt in prompts]
        alone = [self._mentions.add(*self._finder.find(folded(text))) for text in cased]
        chosen = [n for n, groups in enumerate(alone) if groups]
        kinds = [[self._number[group] for group in alone[n]] for n in chosen]
        self._counts.add([cased[n] for n in chosen], kinds)
        answers = [cased_words(_answer(rows[n])) for n in chosen]
        kinds = [[kind + len(self._groups) for kind in each] for each in kinds]
        lengths = dict(zip(chosen, self._counts.add(answers, kinds).tolist(), strict=True))
        openings = dict(zip(chosen, answers, strict=True))
        for n, record in enumerate(rows):
            self._treatment.add(alone[n], _answer(record), openings.get(n, b""), lengths.get(n, 0))
        for dimension in dict.fromkeys(dimension for dimension, _ in self._groups):
            of = [(n, g) for n in chosen for g in alone[n] if g[0] == dimension]
            if of:
                self._twins.add(dimension, [prompts[n] for n, _ in of], [g for _, g in of])

    def count(self) -> None:
        """Rows that mention each group, alone and at all."""
        self.metrics |= self._mentions.metrics()
        self.tables["representation"] = self._mentions.table()

    def shares(self) -> Iterator[GroupShare]:
        """Every group of the lexicon in its order."""
        for group in self._groups:
            reference = self._references.get(group[0])
            expected = reference.shares.get(group[1]) if reference else None
            yield GroupShare(group, self._mentions.alone[group], expected)

    def compare_representation(self) -> None:
        """Shares of exclusive mentions, against the declared references."""
        compared = shares_against_references(
            self._mentions.alone, self._references, self._config.min_mentions
        )
        measured = {each.key[0] for each in compared}
        for dimension in self._references.keys() - measured:
            self.not_measured[f"representation_disparity_{dimension}"] = (
                f"fewer than {self._config.min_mentions} exclusive mentions (bias.min_mentions)"
            )
        self._judge(
            ("representation_disparity", "max_representation_difference"),
            compared,
            "no dimension with a declared reference has enough rows"
            if self._references
            else "no reference shares are declared (bias.references)",
            "reference_comparison",
            ("dimension", "group", "declared in"),
            ("share", "reference share"),
        )

    def compare_treatment(self) -> None:
        """Labels, refusals and lengths, between the groups of each pair."""
        treatment = self._treatment
        if not self._has_answers:
            names = ("label", "refusal", "completion_length")
            measures = [f"{n}_disparity" for n in names] + [f"max_{n}_difference" for n in names]
            reason = "the rows are plain text, to which nothing is answered"
            self.not_measured |= dict.fromkeys(measures, reason)
            return
        pairs = treatment.pairs(self._config.min_mentions)
        too_few = (
            "no dimension has two groups with at least "
            f"{self._config.min_mentions} exclusive mentions (bias.min_mentions)"
        )
        no_labels = (
            f"completions are not label-like (at most {MAX_LABELS} distinct lines, each in "
            f"{MIN_ROWS_A_LABEL} rows on average)"
        )
        columns = ("dimension", "group", "other group")
        labels = treatment.labels(pairs)
        if labels:
            self.metrics["num_label_comparisons"] = len(labels)
        self._judge(
            ("label_disparity", "max_label_difference"),
            labels,
            too_few if treatment.has_labels() else no_labels,
            "label_association",
            (*columns, "label"),
        )
        self._judge(
            ("refusal_disparity", "max_refusal_difference"),
            treatment.refusals(pairs),
            too_few,
            "refusal_association",
            columns,
        )
        self._judge(
            ("completion_length_disparity", "max_completion_length_difference"),
            treatment.lengths(pairs, self._config.num_permutations, self._rng),
            too_few,
            "length_association",
            columns,
        )

    def _judge(
        self,
        names: tuple[str, str],
        comparisons: Sequence[Comparison],
        otherwise: str,
        table: str,
        columns: tuple[str, ...],
        values: tuple[str, str] = ("value", "other value"),
    ) -> None:
        if not comparisons:
            self.not_measured |= dict.fromkeys(names, otherwise)
            return
        found = disparity(comparisons, columns, values)
        self.metrics |= zip(names, (found.significant, found.largest), strict=True)
        self.tables[table] = found.table

    def compare_words(self) -> None:
        """Words most associated with each group, against the dimension's others."""
        pairs = self._treatment.pairs(self._config.min_mentions)
        compared = [g for g in self._groups if any(g in pair for pair in pairs)]
        self.associations, withheld = associated_words(
            self._counts, self._groups, compared, self._finder.words, self._lists
        )
        self.metrics["num_associated_words"] = len(self.associations)
        self.metrics["num_associated_words_withheld"] = withheld
        self.metrics["counted_word_rate"] = self._counts.share_counted
        tables: dict[str, Kind] = {
            "occupation_association": "occupation",
            "word_association": "word",
            "expected_clinical_association": "clinical",
        }
        for name, kind in tables.items():
            top = top_associations(self.associations, kind)
            self.tables[name] = Table(
                columns=(
                    "dimension", "group", "in the", "word", "rows", "rows elsewhere", "log-odds",
                    "z", "q",
                ),
                rows=tuple(
                    (*a.group, a.place, a.word, a.rows, a.rows_elsewhere, a.log_odds, a.z, a.q)
                    for a in top
                ),
            )  # fmt: skip

    def count_twins(self) -> None:
        """Share of prompts whose swapped twin is in the data, by dimension."""
        coverage = self._twins.coverage()
        for dimension in dict.fromkeys(dimension for dimension, _ in coverage):
            name = f"counterfactual_coverage_{dimension}"
            counted = [coverage[group] for group in coverage if group[0] == dimension]
            prompts, covered = (sum(each) for each in zip(*counted, strict=True))
            if prompts >= self._config.min_mentions:
                self.metrics[name] = covered / prompts
            else:
                self.not_measured[name] = (
                    f"{prompts} prompts mention one of its groups alone, "
                    f"{self._config.min_mentions} are needed (bias.min_mentions)"
                )
        self.tables["counterfactual_coverage"] = Table(
            columns=("dimension", "group", "prompts", "with a swapped twin", "share"),
            rows=tuple(
                (*group, prompts, covered, covered / prompts)
                for group, (prompts, covered) in coverage.items()
                if prompts
            ),
        )


def top_associations(associations: Iterable[Association], kind: Kind) -> list[Association]:
    """The first words of a kind, of each group and place."""
    chosen: dict[tuple[Group, str], list[Association]] = {}
    for each in associations:
        if each.kind == kind:
            chosen.setdefault((each.group, each.place), []).append(each)
    return [each for found in chosen.values() for each in found[:TOP_WORDS]]
