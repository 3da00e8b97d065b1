"""In how many texts of each kind a word stands: arrays of a fixed size, filled by one kernel.

At most 2^20 words are counted (fewer with a lexicon of more than 32 groups: the counts take at most
256 MiB). When more turn up, those in one half of the hash values are let go, then a further half,
and so on: which ones stay depends on the words alone, so that neither the order of the rows nor the
size of the batches shows in the result, and the counts of those that stay are exact.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from data_checks.bias.cased_words import folded
from data_checks.text import compiled

Counts = NDArray[np.uint32]

_COUNT_BYTES = 256 << 20
_MAX_WORDS = 1 << 20
_MAX_WORD_BYTES = 40
_FNV_OFFSET = np.uint64(0xCBF29CE484222325)
_FNV_PRIME = np.uint64(0x100000001B3)
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)


class WordCounts:
    """Texts with each word, by kind of text.

    Words with a digit, of one byte, or of more than 40 bytes (no words of a language) are not
    counted.
    """

    def __init__(self, num_kinds: int, max_words: int = _MAX_WORDS) -> None:
        self._capacity = max(1, min(max_words, _COUNT_BYTES // (4 * max(1, num_kinds))))
        # Memory of zeros is taken when it is first written to, so that few words take little.
        self._counts = np.zeros((self._capacity, num_kinds), np.uint32)
        self._keys = np.zeros(self._capacity, np.uint64)
        self._seen = np.zeros((self._capacity, 4), np.int64)
        self._spellings: list[bytes] = []
        self._table = np.full(1 << (2 * self._capacity - 1).bit_length(), -1, np.int32)
        self._limit = _ALL
        self._num_texts = 0

    def add(self, texts: Sequence[bytes], kinds: Sequence[Sequence[int]]) -> NDArray[np.int64]:
        """Count texts (as `cased_words` gives them), each under some kinds.

        Returns how many words each text has, those that are not counted included.
        """
        buffer = np.frombuffer(b" ".join(texts) + b" ", np.uint8)
        ends = np.cumsum([len(text) + 1 for text in texts], dtype=np.int64)
        kind_ends = np.cumsum([len(each) for each in kinds], dtype=np.int64)
        flat_kinds = np.array([kind for each in kinds for kind in each], np.int64)
        num_words = np.zeros(len(texts), np.int64)
        done = 0
        while done < len(texts):
            known = len(self._spellings)
            done, count, places = _count(
                buffer, ends, flat_kinds, kind_ends, done, self._num_texts, known, self._limit,
                self._table, self._keys, self._counts, self._seen, num_words,
            )  # fmt: skip
            self._spellings += [
                folded(buffer[start:end].tobytes()) for start, end in places[: count - known]
            ]
            if done < len(texts):
                self._halve()
        self._num_texts += len(texts)
        return num_words

    def _halve(self) -> None:
        """Let go of the words in the upper half of the hash values that are left."""
        self._limit >>= np.uint64(1)
        size = len(self._spellings)
        kept = np.flatnonzero(self._keys[:size] <= self._limit)
        for array in (self._keys, self._counts, self._seen):
            array[: kept.size] = array[kept]
            array[kept.size : size] = 0
        self._spellings = [self._spellings[each] for each in kept.tolist()]
        _index(self._table, self._keys, kept.size)

    @property
    def share_counted(self) -> float:
        """Share of all words that is counted: 1.0, or a power of one half."""
        return (float(self._limit) + 1) / (float(_ALL) + 1)

    @property
    def words(self) -> list[str]:
        """The words, in the order of the rows of `counts` and `lower_case_rate`."""
        return [spelling.decode("utf-8", "surrogatepass") for spelling in self._spellings]

    @property
    def counts(self) -> Counts:
        """Texts with the word (row) of each kind (column)."""
        return self._counts[: len(self._spellings)]

    @property
    def lower_case_rate(self) -> NDArray[np.float64]:
        """Share of the texts with the word that have it without a capital.

        Texts with no capital at all say nothing about how a word is written, and are left out; 0.0
        where none is left.
        """
        seen = self._seen[: len(self._spellings), 2:]
        return seen[:, 1] / np.maximum(seen[:, 0], 1)


@compiled
def _count(
    buffer: NDArray[np.uint8],
    ends: NDArray[np.int64],
    kinds: NDArray[np.int64],
    kind_ends: NDArray[np.int64],
    first: int,
    num_before: int,
    known: int,
    limit: np.uint64,
    table: NDArray[np.int32],
    keys: NDArray[np.uint64],
    counts: Counts,
    seen: NDArray[np.int64],
    num_words: NDArray[np.int64],
) -> tuple[int, int, NDArray[np.int64]]:
    """Count texts from `first` on; stops at the first text whose words do not all fit.

    `seen` has a word's last text, its last text with it in lower case, and how many texts with some
    capital have it, at all and in lower case. Returns the texts done, the words known, and where
    in the buffer the new ones stand.
    """
    places = np.empty((min(keys.size - known, buffer.size // 2), 2), np.int64)
    old = known
    mask = np.int64(table.size - 1)
    for text in range(first, ends.size):
        start = ends[text - 1] if text else np.int64(0)
        kind_start = kind_ends[text - 1] if text else np.int64(0)
        number = num_before + text + 1
        has_capital = False
        for position in range(start, ends[text]):
            byte = buffer[position]
            if byte == 1 or 65 <= byte <= 90:
                has_capital = True
                break
        num_words[text] = 0
        value = _FNV_OFFSET
        begin = start
        has_digit = False
        for position in range(start, ends[text]):
            byte = buffer[position]
            if byte != 32:
                if byte != 1:
                    lower = byte | 32 if 65 <= byte <= 90 else byte
                    has_digit |= 48 <= byte <= 57
                    value = (value ^ np.uint64(lower)) * _FNV_PRIME
                continue
            length = position - begin
            word_start = begin
            key = value ^ (value >> np.uint64(32))
            key *= np.uint64(0xFF51AFD7ED558CCD)
            key ^= key >> np.uint64(33)
            skipped = has_digit or length < 2 or length > _MAX_WORD_BYTES or key > limit
            value = _FNV_OFFSET
            has_digit = False
            begin = position + 1
            if length > 0:
                num_words[text] += 1
            if skipped:
                continue
            at = np.int64(key & np.uint64(mask))
            while table[at] >= 0 and keys[table[at]] != key:
                at = (at + 1) & mask
            word = np.int64(table[at])
            if word < 0:
                if known == keys.size:
                    return text, known, places
                word = np.int64(known)
                table[at] = word
                keys[word] = key
                places[known - old, 0] = word_start
                places[known - old, 1] = position
                known += 1
            if seen[word, 0] != number:
                seen[word, 0] = number
                for kind in range(kind_start, kind_ends[text]):
                    counts[word, kinds[kind]] += 1
                seen[word, 2] += has_capital
            capital = buffer[word_start] == 1 or 65 <= buffer[word_start] <= 90
            if has_capital and not capital and seen[word, 1] != number:
                seen[word, 1] = number
                seen[word, 3] += 1
    return ends.size, known, places


@compiled
def _index(table: NDArray[np.int32], keys: NDArray[np.uint64], size: int) -> None:
    """Fill the hash table anew."""
    table[:] = -1
    mask = np.int64(table.size - 1)
    for word in range(size):
        at = np.int64(keys[word] & np.uint64(mask))
        while table[at] >= 0:
            at = (at + 1) & mask
        table[at] = word
