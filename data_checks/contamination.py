"""Training rows that hold held-out items: word 13-grams of the item found again in one row.

Source: Brown et al. 2020, "Language models are few-shot learners", appendix C (13-grams; shorter
items as a whole). The share of an item's n-grams that counts as a leak is the config's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_checks.text import (
    Ends,
    Hashes,
    batches,
    compiled,
    hash_words,
    ngram_hashes,
    owners,
    text_hashes,
)
from sft_core.records import Record

NGRAM_WORDS = 13
MIN_CONTAINED_WORDS = 5
"""Shorter items leak only where they are the whole user text of a row."""
MAX_SHARING_ITEMS = 10
"""An n-gram of more items than this is boilerplate and proves no leak alone."""

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Leak:
    """A training row that holds (part of) a held-out item."""

    row: int
    item: str
    overlap: float
    """Share of the item's distinct 13-grams found in the row, in (0, 1]; 1 for a whole item."""


def find_contaminated(
    train: Iterable[Record], held_out: Iterable[tuple[str, str]], min_overlap: float
) -> list[Leak]:
    """Rows whose text (without system prompts) overlaps an item, in the order of rows, then items.

    `held_out` gives the id and the text of each item. An item leaks

    - of 13 words or more: where one row has at least `min_overlap` of its distinct 13-grams, at
      least one of them in no more than 10 different items;
    - of 5 to 12 words, or longer with boilerplate only: where a row holds all its words in order;
    - of 1 to 4 words: where the user's turns of a row are just these words;
    - without words: never.

    The items are indexed in memory (about 40 bytes a word); the rows stream.
    """
    index = _Index(held_out)
    leaks: list[Leak] = []
    if not index.items_of:
        return leaks
    for records, texts in batches((record, record.text()) for record in train):
        words, ends = hash_words(texts)
        found = dict(index.overlapping(words, ends, min_overlap))
        found.update(((row, item), 1.0) for row, item in index.contained(words, ends))
        found.update(((row, item), 1.0) for row, item in index.asked(records))
        for (row, text), overlap in sorted(found.items()):
            line = records[row].row
            leaks.extend(Leak(line, item, overlap) for item in index.items_of[text])
    return leaks


class _Table:
    """Hashes, sorted, with a directory by their leading bits: a look-up touches two places."""

    def __init__(self, keys: Hashes, values: Integers) -> None:
        order = np.argsort(keys, kind="stable")
        self.keys, self.values = keys[order], values[order]
        bits = max(1, int(keys.size).bit_length())
        self.shift = np.uint64(64 - bits)
        starts = np.arange(1 << bits, dtype=np.uint64) << self.shift
        self.directory = np.append(np.searchsorted(self.keys, starts), keys.size)

    def find(self, hashes: Hashes) -> tuple[Integers, Integers]:
        """Positions in `hashes` that are in the table, and their values; repeats included."""
        hits, entries = _find(hashes, self.keys, self.directory, self.shift)
        return hits, self.values[entries]


class _Index:
    """Held-out items: equal word sequences are one text, numbered by first appearance."""

    def __init__(self, held_out: Iterable[tuple[str, str]]) -> None:
        self.items_of: list[list[str]] = []
        numbers: dict[int, int] = {}
        lengths: list[int] = []
        grams: list[Hashes] = []
        for ids, texts in batches(held_out):
            words, ends = hash_words(texts)
            sizes = np.diff(ends, prepend=0)
            all_grams, gram_ends = ngram_hashes(words, ends, NGRAM_WORDS)
            parts = np.split(all_grams, gram_ends[:-1])
            whole = text_hashes(words, ends).tolist()
            for item, size, key, part in zip(ids, sizes.tolist(), whole, parts, strict=True):
                if size == 0:
                    continue
                number = numbers.setdefault(key, len(self.items_of))
                if number == len(self.items_of):
                    self.items_of.append([])
                    lengths.append(size)
                    grams.append(np.unique(part) if size >= NGRAM_WORDS else part[:0])
                self.items_of[number].append(item)
        self._tabulate(list(numbers), np.array(lengths, np.int64), grams)

    def _tabulate(self, whole: list[int], lengths: Integers, grams: list[Hashes]) -> None:
        keys = np.array(whole, np.uint64)
        self.sizes = np.array([part.size for part in grams], np.int64)
        self.ends = np.cumsum(self.sizes)
        self.grams = np.concatenate([*grams, np.empty(0, np.uint64)])
        text = owners(self.ends)
        _, kind, count = np.unique(self.grams, return_inverse=True, return_counts=True)
        rare = count[kind] <= MAX_SHARING_ITEMS
        self.rare = _Table(self.grams[rare], text[rare])
        has_rare = np.zeros(lengths.size, np.bool_)
        has_rare[text[rare]] = True
        self.short = _table_of(keys, lengths < MIN_CONTAINED_WORDS)
        entire = (lengths >= MIN_CONTAINED_WORDS) & ~has_rare
        self.entire = {
            length: _table_of(keys, entire & (lengths == length))
            for length in np.unique(lengths[entire]).tolist()
        }

    def overlapping(
        self, words: Hashes, ends: Ends, min_overlap: float
    ) -> Iterator[tuple[tuple[int, int], float]]:
        """Row and text that share enough 13-grams, with the share."""
        grams, gram_ends = ngram_hashes(words, ends, NGRAM_WORDS)
        hits, texts = self.rare.find(grams)
        codes = np.unique(owners(gram_ends)[hits] * len(self.items_of) + texts)
        pairs = np.stack(np.divmod(codes, len(self.items_of)), axis=1)
        shares = _shares(pairs, grams, gram_ends, self.grams, self.ends, self.sizes)
        enough = shares >= min_overlap
        rows, texts = pairs[enough].T.tolist()
        yield from zip(zip(rows, texts, strict=True), shares[enough].tolist(), strict=True)

    def contained(self, words: Hashes, ends: Ends) -> Iterator[tuple[int, int]]:
        """Row and text, of those looked for as a whole, that is a run of the row's words."""
        for length, table in self.entire.items():
            grams, gram_ends = ngram_hashes(words, ends, length)
            hits, texts = table.find(grams)
            yield from zip(owners(gram_ends)[hits].tolist(), texts.tolist(), strict=True)

    def asked(self, records: list[Record]) -> Iterator[tuple[int, int]]:
        """Row and text of a few words that is all the user says in the row."""
        if self.short.keys.size == 0:
            return
        said = [
            "\n".join(m["content"] for m in record.messages if m["role"] == "user")
            for record in records
        ]
        hits, texts = self.short.find(text_hashes(*hash_words(said)))
        yield from zip(hits.tolist(), texts.tolist(), strict=True)


def _table_of(keys: Hashes, chosen: NDArray[np.bool_]) -> _Table:
    return _Table(keys[chosen], np.flatnonzero(chosen))


@compiled
def _find(
    hashes: Hashes, keys: Hashes, directory: Integers, shift: np.uint64
) -> tuple[Integers, Integers]:
    """All pairs of positions (in `hashes`, in `keys`) with equal values."""
    capacity = 1024
    found = np.empty((2, capacity), np.int64)
    count = 0
    for position in range(hashes.size):
        key = hashes[position]
        slot = key >> shift
        for entry in range(directory[slot], directory[slot + np.uint64(1)]):
            if keys[entry] == key:
                if count == capacity:
                    more = np.empty((2, 2 * capacity), np.int64)
                    for k in range(count):  # a slice assignment would take seconds to compile
                        more[0, k] = found[0, k]
                        more[1, k] = found[1, k]
                    found = more
                    capacity *= 2
                found[0, count] = position
                found[1, count] = entry
                count += 1
    return found[0, :count].copy(), found[1, :count].copy()


@compiled
def _shares(
    pairs: Integers, grams: Hashes, ends: Ends, item_grams: Hashes, item_ends: Ends, sizes: Integers
) -> NDArray[np.float64]:
    """Share of each item's distinct n-grams that its row has; `pairs` are sorted by row."""
    shares = np.empty(len(pairs), np.float64)
    row = -1
    own = grams[:0].copy()
    for p in range(len(pairs)):
        if pairs[p, 0] != row:
            row = pairs[p, 0]
            own = np.sort(grams[ends[row - 1] if row > 0 else 0 : ends[row]])
        item = pairs[p, 1]
        i = 0
        shared = 0
        for k in range(item_ends[item] - sizes[item], item_ends[item]):
            while i < own.size and own[i] < item_grams[k]:
                i += 1
            if i < own.size and own[i] == item_grams[k]:
                shared += 1
        shares[p] = shared / sizes[item]
    return shares
