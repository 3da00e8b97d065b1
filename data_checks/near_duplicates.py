"""Rows that say almost the same thing: MinHash finds candidates, exact Jaccard verifies them.

Two texts are compared by the Jaccard similarity of their sets of word 5-grams; a text of fewer
than five words is one gram, all its words. A pair of similarity s becomes a candidate with
probability 1 - (1 - s^r)^b, with b = 24 bands of r MinHash values. r follows from the least
similarity that is asked for, so that a pair right at it is missed with probability 0.01 at most
(7 at 0.8: caught with 0.9965 at 0.8 and 1 - 2e-7 at 0.9). No pair is reported unverified.

Source: Broder 1997, "On the resemblance and containment of documents" (MinHash); Leskovec,
Rajaraman and Ullman, "Mining of Massive Datasets", section 3.4 (banding); Lee et al. 2022,
"Deduplicating training data makes language models better" (word 5-grams, Jaccard 0.8).
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from data_checks.minhash import Integers, sign, similarities, verify_band
from data_checks.text import Ends, Hashes, batches, hash_words, ngram_hashes
from sft_core.records import Record

NGRAM_WORDS = 5
NUM_BANDS = 24
MAX_MISS_RATE = 0.01
MAX_BAND_ROWS = 8
MAX_BUCKET = 64
"""Rows in one bucket up to which all pairs are compared; above it, rows against leaders only."""

MAX_COPIES = 8
"""Rows with one and the same set of grams up to which each is compared on its own."""

_SEED = 20_240_229

Pair = tuple[int, int, float]
"""Lower row, higher row, Jaccard similarity in [0, 1]."""


@dataclass(frozen=True)
class NearDuplicates:
    """Verified pairs, sorted, and clusters: connected components of the graph of pairs.

    `clusters` maps a row to the lowest row of its cluster. Rows that are alone, and the lowest
    rows themselves, are not listed: `clusters.get(row, row)` names any row's cluster. Two rows of
    a cluster can be less similar than the limit, since similarity does not carry over.
    """

    pairs: tuple[Pair, ...]
    clusters: dict[int, int]

    def closest(self) -> dict[int, tuple[int, float]]:
        """For each row in a pair, the row most like it (the lowest, if several) and how like."""
        best: dict[int, tuple[int, float]] = {}
        for low, high, similarity in self.pairs:
            for row, other in ((low, high), (high, low)):
                if row not in best or similarity > best[row][1]:
                    best[row] = (other, similarity)
        return best


def band_rows(min_similarity: float) -> int:
    """MinHash values a band: the most that keep the miss rate at the least similarity allowed."""
    share = 1.0 - MAX_MISS_RATE ** (1.0 / NUM_BANDS)
    if min_similarity >= share ** (1.0 / MAX_BAND_ROWS):
        return MAX_BAND_ROWS
    return max(1, math.floor(math.log(share) / math.log(min_similarity)))


def catch_probability(similarity: float, min_similarity: float) -> float:
    """Probability that a pair of a similarity becomes a candidate."""
    return 1.0 - (1.0 - similarity ** band_rows(min_similarity)) ** NUM_BANDS


def find_near_duplicates(records: Iterable[Record], min_similarity: float) -> NearDuplicates:
    """Pairs of rows whose text (without system prompts) has at least a Jaccard similarity.

    The result does not depend on the order of the records, which are read once. Rows without a
    single word are never near-duplicates. Two bounds keep the cost linear, and leave out pairs but
    split no cluster by more than chance. Of more than 8 rows with equal sets of grams, each is
    paired with the lowest, which stands for them all. Where more than 64 others share a bucket
    (boilerplate), each is compared with at most 64 leaders of the bucket.

    Memory: about 500 bytes a row; the sets of grams lie in a temporary file (8 bytes a word).
    """
    num_rows = band_rows(min_similarity)
    rng = np.random.default_rng(_SEED)
    factors = rng.integers(0, 2**32, NUM_BANDS * num_rows, np.uint32) | np.uint32(1)
    shifts = rng.integers(0, 2**32, NUM_BANDS * num_rows, np.uint32)
    rows: list[Integers] = []
    sizes: list[Integers] = []
    digests: list[Hashes] = []
    keys: list[Hashes] = []
    with tempfile.TemporaryFile(prefix="tunetrail-") as file:
        for batch_rows, texts in batches((r.row, r.text()) for r in records):
            grams, ends = ngram_hashes(*hash_words(texts), NGRAM_WORDS)
            grams, ends, batch_digests, batch_keys = sign(grams, ends, factors, shifts, NUM_BANDS)
            grams.tofile(file)
            rows.append(np.array(batch_rows, np.int64))
            sizes.append(np.diff(ends, prepend=0))
            digests.append(batch_digests)
            keys.append(batch_keys)
        file.flush()
        if not sizes or not any(size.any() for size in sizes):
            return NearDuplicates((), {})
        grams = np.asarray(np.memmap(file, np.uint64, "r"))
        return _compare(
            np.concatenate(rows),
            np.concatenate(sizes),
            np.concatenate(digests),
            keys,
            grams,
            min_similarity,
        )


def _compare(
    rows: Integers,
    sizes: Integers,
    digests: Hashes,
    batch_keys: list[Hashes],
    grams: Hashes,
    min_similarity: float,
) -> NearDuplicates:
    ends = np.cumsum(sizes)
    order = np.lexsort((rows, digests))
    order = order[sizes[order] > 0]
    is_first = np.ones(order.size, np.bool_)
    is_first[1:] = digests[order][1:] != digests[order][:-1]
    group = np.cumsum(is_first) - 1
    leaders = order[is_first][group]
    stands_alone = is_first | (np.bincount(group)[group] <= MAX_COPIES)
    same = np.stack([leaders, order], axis=1)[~stands_alone]
    places = order[stands_alone]  # in the order of digests, then rows
    found = [_verify_pairs(same, grams, ends, sizes, min_similarity)]
    keys = np.concatenate(batch_keys)[places]
    batch_keys.clear()
    for band in range(NUM_BANDS):
        by_key = np.argsort(keys[:, band], kind="stable")
        pairs, similarity = verify_band(
            by_key, keys, band, places, grams, ends, sizes, min_similarity, MAX_BUCKET
        )
        found.append((pairs, similarity))
    pairs = np.concatenate([p for p, _ in found])
    similarity = np.concatenate([s for _, s in found])
    clusters = _clusters(pairs, rows)
    named = np.sort(rows[pairs], axis=1)
    _, once = np.unique(named, axis=0, return_index=True)
    low, high = named[once].T
    listed = zip(low.tolist(), high.tolist(), similarity[once].tolist(), strict=True)
    return NearDuplicates(tuple(listed), clusters)


def _clusters(pairs: Integers, rows: Integers) -> dict[int, int]:
    """Row -> lowest row of its connected component, but for the lowest rows themselves."""
    members = np.unique(pairs)
    edges = np.searchsorted(members, pairs)
    ones = np.ones(len(edges), np.int8)
    graph = coo_array((ones, (edges[:, 0], edges[:, 1])), shape=(members.size, members.size))
    number, component = connected_components(graph, directed=False)
    lowest = np.full(number, np.iinfo(np.int64).max)
    np.minimum.at(lowest, component, rows[members])
    pairs_of = zip(rows[members].tolist(), lowest[component].tolist(), strict=True)
    return {row: first for row, first in sorted(pairs_of) if row != first}


def _verify_pairs(
    pairs: Integers, grams: Hashes, ends: Ends, sizes: Integers, min_similarity: float
) -> tuple[Integers, NDArray[np.float64]]:
    similarity = similarities(pairs, grams, ends, sizes, min_similarity)
    kept = similarity >= min_similarity
    return pairs[kept], similarity[kept]
