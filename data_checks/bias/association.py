"""Which words go together with the mention of a group, in the prompt and in the completion.

An association is a fact about the data, not a verdict: many medical ones are legitimate. Those on
the list of clinical terms are shown apart. Occupations are a question that is asked beforehand:
they are a family of tests of their own, so that all other words do not drown them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from data_checks.bias.lexicon import Group, WordList
from data_checks.bias.significance import SIGNIFICANCE
from data_checks.bias.word_counts import WordCounts

Kind = Literal["word", "occupation", "clinical"]

PLACES = ("prompt", "completion")
MIN_WORD_ROWS = 5
"""Words and labels in fewer rows are neither tested nor shown: a rare one may be a name."""
MIN_LOWER_CASE_RATE = 0.5
"""A word that is written with a capital more often than not may be a name, and is not shown."""

_PRIOR_WORDS = 1_000.0

Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Association:
    """A word more common with one group than with the others of its dimension."""

    group: Group
    place: str
    word: str
    kind: Kind
    rows: int
    rows_elsewhere: int
    log_odds: float
    z: float
    q: float = 1.0
    """Least false discovery rate at which the word is found."""


def weighted_log_odds(
    here: NDArray[np.integer], elsewhere: NDArray[np.integer]
) -> tuple[Numbers, Numbers]:
    """Log-odds ratios of words by their counts on two sides, and their z-scores.

    The ratio is shrunk by a Dirichlet prior: the words of both sides together, scaled to 1,000
    words. All 0.0 where a side has no words, or where both know one and the same word only.

    Source: Monroe, Colaresi and Quinn 2008, "Fightin' words: lexical feature selection and
    evaluation for identifying the content of political conflict" (informative Dirichlet prior).
    """
    total_here, total_elsewhere = int(here.sum()), int(elsewhere.sum())
    both = here.astype(np.float64) + elsewhere
    delta, z = np.zeros(both.size), np.zeros(both.size)
    known = both > 0
    if total_here == 0 or total_elsewhere == 0 or known.sum() < 2:
        return delta, z
    prior = both[known] * (_PRIOR_WORDS / (total_here + total_elsewhere))
    y_here, y_elsewhere = here[known] + prior, elsewhere[known] + prior
    odds_here = y_here / (total_here + _PRIOR_WORDS - y_here)
    odds_elsewhere = y_elsewhere / (total_elsewhere + _PRIOR_WORDS - y_elsewhere)
    delta[known] = np.log(odds_here / odds_elsewhere)
    z[known] = delta[known] / np.sqrt(1 / y_here + 1 / y_elsewhere)
    return delta, z


def associated_words(
    counts: WordCounts,
    groups: Sequence[Group],
    compared: Sequence[Group],
    own_words: Mapping[str, frozenset[str]],
    lists: Mapping[Kind, WordList],
) -> tuple[list[Association], int]:
    """Words associated with each compared group, at a false discovery rate of 0.05.

    Column `k * len(groups) + n` of the counts is group n in place k. Words in fewer than five rows
    and the terms of the group's own dimension are not tested. The rate is controlled over all
    groups and places, for occupations and for all other words apart. Returns the associations by
    dimension, group, place and falling z, and how many more were found with words that are not
    shown, since they may be names; a word of any list is no name.
    """
    words = counts.words
    tested: list[Association] = []
    for group in compared:
        own = own_words[group[0]]
        kind_of: dict[str, Kind] = {
            word: kind for kind, listed in lists.items() for word in listed.of(group[0])
        }
        others = [n for n, other in enumerate(groups) if other[0] == group[0] and other != group]
        for k, place in enumerate(PLACES):
            here = counts.counts[:, k * len(groups) + groups.index(group)].astype(np.int64)
            elsewhere = counts.counts[:, [k * len(groups) + n for n in others]].sum(1, np.int64)
            delta, z = weighted_log_odds(here, elsewhere)
            tested += [
                Association(
                    group, place, words[n], kind_of.get(words[n], "word"), int(here[n]),
                    int(elsewhere[n]), float(delta[n]), float(z[n]),
                )
                for n in np.flatnonzero(here >= MIN_WORD_ROWS).tolist()
                if words[n] not in own
            ]  # fmt: skip
    found = [
        *_significant([each for each in tested if each.kind == "occupation"]),
        *_significant([each for each in tested if each.kind != "occupation"]),
    ]
    listed_words = frozenset[str]().union(*own_words.values())
    lower_case = dict(zip(words, counts.lower_case_rate.tolist(), strict=True))
    shown = [
        each
        for each in found
        if each.kind != "word"
        or each.word in listed_words
        or lower_case[each.word] >= MIN_LOWER_CASE_RATE
    ]
    order = {group: n for n, group in enumerate(groups)}
    shown.sort(key=lambda a: (order[a.group], PLACES.index(a.place), -a.z, a.word))
    return shown, len(found) - len(shown)


def _significant(family: Sequence[Association]) -> list[Association]:
    """Those found at the false discovery rate, with their q (Benjamini and Hochberg 1995)."""
    if not family:
        return []
    rates = stats.false_discovery_control(stats.norm.sf([each.z for each in family])).tolist()
    judged = (replace(each, q=q) for each, q in zip(family, rates, strict=True))
    return [each for each in judged if each.q <= SIGNIFICANCE]
