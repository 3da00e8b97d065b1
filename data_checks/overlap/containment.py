"""How much of some known texts other texts contain, word for word or with words changed.

Two measures, both shares of one known text that are found in one other, so that a question is found
in a row of question and answer (Jaccard similarity would fall with the length of the answer):

- overlap: share of its distinct word 13-grams. It sees verbatim copies.
- similarity: share of its distinctive word 3-grams; a 3-gram is distinctive where no more than 10
  known texts have it. It sees edited copies: where every tenth word is another, no 13-gram is left
  and half of the 5-grams, but 0.7 of the 3-grams.

An index of the distinctive 3-grams counts, for every pair, those in common. That is exact: nothing
is sampled, as MinHash would, and no pair is missed.

Source: Broder 1997, "On the resemblance and containment of documents" (containment).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from data_checks.overlap.minhash import grown
from data_checks.text import Ends, Hashes, compiled, ngram_hashes, owners

OVERLAP_WORDS = 13
SIMILARITY_WORDS = 3
MAX_SHARING_TEXTS = 10
"""A 3-gram of more texts than this is boilerplate."""
MIN_DISTINCTIVE = 5
"""Distinctive 3-grams without which a text is boilerplate too, and looked for as a whole."""

Integers = NDArray[np.int64]
Indices = NDArray[np.int32]


class Containment:
    """Known texts, by their distinctive 3-grams.

    The 3-grams lie sorted, with a directory by their leading bits: a look-up touches two places.
    """

    def __init__(self, words: Hashes, ends: Ends, min_share: float) -> None:
        """Index texts of at least 5 words, or of none; `min_share` is the least share to match."""
        self.words, self.ends = words, ends
        sizes = np.diff(ends, prepend=0)
        grams, texts = _sorted_grams(words, ends)
        num_texts = _run_lengths(grams)
        chosen = num_texts <= MAX_SHARING_TEXTS
        self.num_distinctive = np.bincount(texts[chosen], minlength=ends.size)
        self.whole = (sizes < OVERLAP_WORDS) | (self.num_distinctive < MIN_DISTINCTIVE)
        chosen &= ~self.whole[texts]
        anchors = np.flatnonzero(self.whole[texts])  # the rarest 3-gram of each leads to it
        anchors = anchors[np.lexsort((num_texts[anchors], texts[anchors]))]
        chosen[anchors[_differs(texts[anchors])]] = True
        self.needed = np.ceil(min_share * self.num_distinctive - 1e-9).astype(np.int32)
        self.needed[self.whole] = 1
        self.grams, self.texts = grams[chosen], texts[chosen]
        bits = max(1, int(self.grams.size).bit_length() - 1)
        self.shift = np.uint64(64 - bits)
        self.directory = _directory(self.grams, bits)
        self.seen = np.zeros(self.grams.size, np.int32)
        self.counts = np.zeros(ends.size, np.int32)
        self.num_read = 0

    def matches(self, words: Hashes, ends: Ends) -> Iterator[tuple[int, int, float, float]]:
        """Position of a text, known text, overlap and similarity.

        A known text of fewer than 13 words or 5 distinctive 3-grams matches only as a whole, with
        measures of 1; any other where the text has `min_share` of its distinctive 3-grams.
        """
        pairs, shared = _candidates(
            *ngram_hashes(words, ends, SIMILARITY_WORDS),
            self.grams,
            self.texts,
            self.directory,
            self.shift,
            self.needed,
            self.seen,
            self.counts,
            self.num_read,
        )
        self.num_read += ends.size
        whole = self.whole[pairs[:, 1]]
        entire = pairs[whole]
        entire = entire[_holds_all(entire, words, ends, self.words, self.ends)]
        yield from ((row, text, 1.0, 1.0) for row, text in entire.tolist())
        pairs = pairs[~whole]
        similarity = shared[~whole] / self.num_distinctive[pairs[:, 1]]
        overlap = _shares(
            *ngram_hashes(*_chosen(words, ends, pairs[:, 0]), OVERLAP_WORDS),
            *ngram_hashes(*_chosen(self.words, self.ends, pairs[:, 1]), OVERLAP_WORDS),
        )
        yield from zip(*pairs.T.tolist(), overlap.tolist(), similarity.tolist(), strict=True)


def _sorted_grams(words: Hashes, ends: Ends) -> tuple[Hashes, Indices]:
    """The distinct 3-grams of each text, sorted, with the texts that they belong to."""
    grams, gram_ends = ngram_hashes(words, ends, SIMILARITY_WORDS)
    texts = np.repeat(np.arange(ends.size, dtype=np.int32), np.diff(gram_ends, prepend=0))
    order = np.argsort(grams, kind="stable")
    grams, texts = grams[order], texts[order]
    once = _differs(grams) | _differs(texts)
    return grams[once], texts[once]


def _differs(values: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Where an element is not equal to the one before it; the first never is."""
    differs = np.ones(values.size, np.bool_)
    differs[1:] = values[1:] != values[:-1]
    return differs


def _chosen(words: Hashes, ends: Ends, positions: Integers) -> tuple[Hashes, Ends]:
    """The words of some of the texts, flat again."""
    sizes = np.diff(ends, prepend=0)[positions]
    chosen_ends = np.cumsum(sizes)
    shift = np.repeat(ends[positions] - chosen_ends, sizes)
    return words[np.arange(shift.size) + shift], chosen_ends


def _shares(
    grams: Hashes, ends: Ends, known_grams: Hashes, known_ends: Ends
) -> NDArray[np.float64]:
    """Share of the distinct n-grams of each known text that the text at its position has."""
    have = _by_position(grams, ends)
    want = _by_position(known_grams, known_ends)
    want = want[_differs(want)]
    place = np.minimum(np.searchsorted(have, want), have.size - 1)
    position = (want >> _bits_beside(known_ends)).astype(np.int64)
    found = np.bincount(position[have[place] == want], minlength=known_ends.size)
    return found / np.bincount(position, minlength=known_ends.size)


def _by_position(grams: Hashes, ends: Ends) -> Hashes:
    """Sorted: the position of the text in the leading bits, the n-gram's hash in the others."""
    bits = _bits_beside(ends)
    return np.sort(owners(ends).astype(np.uint64) << bits | grams >> np.uint64(64) - bits)


def _bits_beside(ends: Ends) -> np.uint64:
    return np.uint64(64 - max(1, ends.size.bit_length()))


@compiled
def _run_lengths(values: Hashes) -> Indices:
    """How often each element of a sorted array is there."""
    lengths = np.empty(values.size, np.int32)
    start = 0
    while start < values.size:
        end = start + 1
        while end < values.size and values[end] == values[start]:
            end += 1
        lengths[start:end] = end - start
        start = end
    return lengths


@compiled
def _directory(values: Hashes, bits: int) -> Indices:
    """Where each value of the leading bits begins in a sorted array, and the array's end."""
    directory = np.zeros((1 << bits) + 1, np.int32)
    shift = np.uint64(64 - bits)
    for value in values:
        directory[(value >> shift) + np.uint64(1)] += 1
    for head in range(1, directory.size):
        directory[head] += directory[head - 1]
    return directory


@compiled
def _candidates(
    own_grams: Hashes,
    ends: Ends,
    grams: Hashes,
    texts: Indices,
    directory: Indices,
    shift: np.uint64,
    needed: Indices,
    seen: Indices,
    counts: Indices,
    num_read: int,
) -> tuple[Integers, Integers]:
    """Row and text of all pairs with enough distinct n-grams in common, and how many.

    `seen` remembers, over all calls, in which row a gram was met last, as its number from 1 on.
    `counts` is all zeros before and after.
    """
    capacity = 1024
    pairs = np.empty((capacity, 2), np.int64)
    shared = np.empty(capacity, np.int64)
    count = 0
    touched = np.empty(counts.size, np.int32)
    start = 0
    for row in range(ends.size):
        num_touched = 0
        serial = num_read + row + 1
        for position in range(start, ends[row]):
            gram = own_grams[position]
            head = gram >> shift
            is_first = True
            for entry in range(directory[head], directory[head + np.uint64(1)]):
                if grams[entry] != gram:
                    continue
                if is_first and seen[entry] == serial:
                    break
                if is_first:
                    seen[entry] = serial
                    is_first = False
                text = texts[entry]
                if counts[text] == 0:
                    touched[num_touched] = text
                    num_touched += 1
                counts[text] += 1
        start = ends[row]
        for k in range(num_touched):
            text = touched[k]
            if counts[text] >= needed[text]:
                if count == capacity:
                    capacity *= 2
                    pairs, shared = grown(pairs, shared, capacity)
                pairs[count, 0] = row
                pairs[count, 1] = text
                shared[count] = counts[text]
                count += 1
            counts[text] = 0
    return pairs[:count].copy(), shared[:count].copy()


@compiled
def _holds_all(
    pairs: Integers, words: Hashes, ends: Ends, known_words: Hashes, known_ends: Ends
) -> NDArray[np.bool_]:
    """Whether the row of each pair has all words of the text, in order and next to each other."""
    contained = np.zeros(len(pairs), np.bool_)
    for p in range(len(pairs)):
        row, text = pairs[p, 0], pairs[p, 1]
        first = known_ends[text - 1] if text > 0 else 0
        size = known_ends[text] - first
        for start in range(ends[row - 1] if row > 0 else 0, ends[row] - size + 1):
            k = 0
            while k < size and words[start + k] == known_words[first + k]:
                k += 1
            if k == size:
                contained[p] = True
                break
    return contained
