"""How often the prompts mention each group, and whether that is what a reference says it should be.

Groups are counted over rows whose prompt mentions one group of the dimension and no other
(exclusive mentions). Nothing is compared unless somebody has declared what the shares should be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

from data_checks.bias.lexicon import Group, Lexicon, Reference, check_groups
from data_checks.bias.significance import Comparison, detectable_difference, share_p
from sft_core.config import BiasConfig
from sft_core.reports import Table


class Mentions:
    """Rows that mention each group: at all, alone, and by ambiguous terms only."""

    def __init__(self, groups: Collection[Group]) -> None:
        self._groups = tuple(groups)
        self._rows: Counter[Group] = Counter()
        self._ambiguous: Counter[Group] = Counter()
        self.alone: Counter[Group] = Counter()
        """Rows with exclusive mentions of each group."""
        self.num_rows = 0

    def add(self, mentioned: set[Group], unclear: set[Group]) -> list[Group]:
        """Count a row; returns the groups that it mentions exclusively."""
        self.num_rows += 1
        self._rows.update(mentioned)
        self._ambiguous.update(unclear)
        alone = [g for g in mentioned if all(g == o or g[0] != o[0] for o in mentioned)]
        self.alone.update(alone)
        return alone

    def metrics(self) -> dict[str, float]:
        """Counts and rates by group; rates are 0.0 without rows."""
        found: dict[str, float] = {"num_rows": self.num_rows}
        for group in self._groups:
            name = "_".join(group)
            found[f"num_rows_mentioning_{name}"] = self._rows[group]
            found[f"num_rows_mentioning_only_{name}"] = self.alone[group]
            found[f"mention_rate_{name}"] = self._rate(group)
        return found

    def table(self) -> Table:
        """The same by row, with the rows that an ambiguous term leaves open."""
        return Table(
            columns=(
                "dimension", "group", "rows", "share of rows", "rows with no other group",
                "rows with ambiguous terms only",
            ),
            rows=tuple(
                (*g, self._rows[g], self._rate(g), self.alone[g], self._ambiguous[g])
                for g in self._groups
            ),
        )  # fmt: skip

    def _rate(self, group: Group) -> float:
        return self._rows[group] / self.num_rows if self.num_rows else 0.0


def declared_references(lexicon: Lexicon, config: BiasConfig) -> dict[str, Reference]:
    """Reference shares by dimension: those of the config, then those of the lexicon.

    Raises:
        ConfigError: the config names a dimension or a group that the lexicon does not have.
    """
    references = dict(lexicon.references)
    for dimension, declared in config.references.items():
        place = f"bias.references.{dimension}"
        if declared == "equal":
            check_groups(lexicon, dimension, (), place)
            groups = lexicon.dimensions[dimension]
            shares = {group: 1 / len(groups) for group in groups}
        else:
            check_groups(lexicon, dimension, declared, place)
            shares = declared
        references[dimension] = Reference(source="bias.references", shares=shares)
    return references


def shares_against_references(
    alone: Mapping[Group, int], references: Mapping[str, Reference], min_mentions: int
) -> list[Comparison]:
    """Share of each group among the exclusive mentions of its dimension, against its reference.

    Only groups with a reference share count. A dimension whose groups have fewer than
    `min_mentions` rows together is left out.
    """
    rows = {
        dimension: sum(alone[dimension, group] for group in reference.shares)
        for dimension, reference in references.items()
    }
    cells = [
        (dimension, group, share, reference.source)
        for dimension, reference in references.items()
        for group, share in reference.shares.items()
        if rows[dimension] >= min_mentions
    ]
    return [
        Comparison(
            key=(dimension, group, source),
            value=alone[dimension, group] / rows[dimension],
            other=share,
            p=share_p(alone[dimension, group], rows[dimension], share),
            detectable=detectable_difference(share * (1 - share), (rows[dimension],), len(cells)),
        )
        for dimension, group, share, source in cells
    ]
