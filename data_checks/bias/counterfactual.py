"""Whether a prompt's swapped twin is in the data: the same text about the other group.

Each word with counterparts (`she`/`he`) is replaced by the first of its row, so that twins get one
and the same neutral form, whichever of two counterparts (`her`: `him` or `his`) the twin has. Only
the 64-bit hash of that form is kept: 8 bytes a row and dimension.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from data_checks.bias.lexicon import Group, Lexicon
from data_checks.text import Hashes, hash_words, text_hashes


class Twins:
    """Collects prompts that mention one group of a dimension and no other."""

    def __init__(self, lexicon: Lexicon) -> None:
        self._words: dict[str, tuple[Hashes, Hashes]] = {}
        self._groups = {
            (dimension, group)
            for dimension, rows in lexicon.counterparts.items()
            for row in rows
            for group in row
        }
        self._forms: dict[Group, list[Hashes]] = defaultdict(list)
        for dimension, rows in lexicon.counterparts.items():
            pairs = [
                (term, next(iter(row.values()))[0])
                for row in rows
                for terms in row.values()
                for term in terms
            ]
            terms, _ = hash_words(term for term, _ in pairs)
            neutral, _ = hash_words(first for _, first in pairs)
            order = np.argsort(terms)
            self._words[dimension] = terms[order], neutral[order]

    def add(self, dimension: str, prompts: Sequence[str], groups: Sequence[Group]) -> None:
        """Note prompts with their group; a group without counterparts is passed over."""
        if dimension not in self._words:
            return
        hashes, ends = hash_words(prompts)
        terms, neutral = self._words[dimension]
        at = np.minimum(np.searchsorted(terms, hashes), terms.size - 1)
        forms = text_hashes(np.where(terms[at] == hashes, neutral[at], hashes), ends)
        for group in self._groups.intersection(groups):
            self._forms[group].append(forms[[each == group for each in groups]])

    def coverage(self) -> dict[Group, tuple[int, int]]:
        """For each group with counterparts: its prompts, and those with a twin in the data."""
        forms = {
            group: np.concatenate([np.empty(0, np.uint64), *self._forms[group]])
            for group in sorted(self._groups)
        }
        found = {}
        for group, own in forms.items():
            others = [f for other, f in forms.items() if other[0] == group[0] and other != group]
            found[group] = own.size, int(np.isin(own, np.concatenate(others)).sum())
        return found
