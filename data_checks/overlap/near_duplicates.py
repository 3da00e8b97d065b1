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
from typing import IO, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order

from data_checks.overlap.minhash import (
    Integers,
    Keys,
    Sets,
    Similarities,
    roots,
    sign,
    verify_band,
    verify_copies,
)
from data_checks.text import Hashes, batches, hash_words, ngram_hashes
from sft_core.records import Record

NGRAM_WORDS = 5
NUM_BANDS = 24
MAX_MISS_RATE = 0.01
MAX_BAND_ROWS = 8
MAX_BUCKET = 32
"""Rows in one bucket up to which all pairs are compared; above it, rows against leaders only."""

MAX_COPIES = 8
"""Rows with one and the same set of grams up to which each is compared on its own."""

_SEED = 20_240_229

KeptRow = Literal["earliest", "longest"]


class Member(NamedTuple):
    """A row's place in its cluster."""

    first: int
    """Earliest row of the cluster, which names it."""
    kept: int
    """Row that stays and stands for the others."""
    via: int
    """Next row on a shortest chain of verified pairs to the kept row: often that row itself."""
    jaccard: float
    """Similarity to `via`; 1 for the kept row, which is its own."""


@dataclass(frozen=True)
class NearDuplicates:
    """Verified pairs and the clusters that they make: connected components.

    `pairs` has the columns row, other (the higher of the two) and jaccard, sorted. `members` holds
    every row that is in a pair. Two rows of a cluster can be less similar than the limit, since
    similarity does not carry over.
    """

    pairs: pa.Table
    members: dict[int, Member]


class _Signed(NamedTuple):
    """What is remembered of each record: its row, length, set of grams and band keys."""

    rows: Integers
    num_words: Integers
    digests: Hashes
    keys: Keys
    sets: Sets


def band_rows(min_similarity: float) -> int:
    """MinHash values a band: the most that keep the miss rate at the least similarity allowed."""
    share = 1.0 - MAX_MISS_RATE ** (1.0 / NUM_BANDS)
    if min_similarity >= share ** (1.0 / MAX_BAND_ROWS):
        return MAX_BAND_ROWS
    return max(1, math.floor(math.log(share) / math.log(min_similarity)))


def catch_probability(similarity: float, min_similarity: float) -> float:
    """Probability that a pair of a similarity becomes a candidate."""
    return 1.0 - (1.0 - similarity ** band_rows(min_similarity)) ** NUM_BANDS


def find_near_duplicates(
    records: Iterable[Record], min_similarity: float, kept_row: KeptRow = "earliest"
) -> NearDuplicates:
    """Pairs of rows whose text (without system prompts) has at least a Jaccard similarity.

    Of each cluster the earliest row is kept, or the `longest`: the one with the most words, and
    of equally long ones the earliest. Either way the earliest row names the cluster, so that a
    longer row that is appended later takes the place of the kept one in the cluster's split.

    The result does not depend on the order of the records, which are read once. Rows without a
    single word are never near-duplicates. Two bounds keep the cost linear, and leave out pairs but
    split no cluster by more than chance. Of more than 8 rows with equal sets of grams, each is
    paired with the lowest, which stands for them all. Where more than 32 rows share a bucket
    (boilerplate), each is compared with at most 32 leaders of the bucket, and paired with one.
    Without such a bucket, a second run over what is kept finds nothing more.

    Memory: about 300 bytes a row; the sets of grams lie in a temporary file (8 bytes a word),
    whose pages the system may keep in memory while there is room.
    """
    with tempfile.TemporaryFile(prefix="tunetrail-") as file:
        signed = _sign(records, band_rows(min_similarity), file)
        parents = np.arange(signed.rows.size)
        pairs, similarity = _verify(signed, min_similarity, parents)
    return _cluster(pairs, similarity, signed, roots(parents), kept_row)


def _sign(records: Iterable[Record], num_rows: int, file: IO[bytes]) -> _Signed:
    """Read the records once; their sets of grams go to the file and are mapped from there."""
    rng = np.random.default_rng(_SEED)
    factors = rng.integers(0, 2**32, NUM_BANDS * num_rows, np.uint32) | np.uint32(1)
    shifts = rng.integers(0, 2**32, NUM_BANDS * num_rows, np.uint32)
    none = np.empty(0, np.int64)
    rows, num_words, sizes = [none], [none], [none]
    digests = [np.empty(0, np.uint64)]
    keys = [np.empty((NUM_BANDS, 0), np.uint32)]
    for batch_rows, texts in batches((r.row, r.text()) for r in records):
        words, word_ends = hash_words(texts)
        grams, ends = ngram_hashes(words, word_ends, NGRAM_WORDS)
        grams, ends, batch_digests, batch_keys = sign(grams, ends, factors, shifts, NUM_BANDS)
        grams.tofile(file)
        rows.append(np.array(batch_rows, np.int64))
        num_words.append(np.diff(word_ends, prepend=0))
        sizes.append(np.diff(ends, prepend=0))
        digests.append(batch_digests)
        keys.append(batch_keys)
    file.flush()
    set_ends = np.cumsum(np.concatenate(sizes))
    some = set_ends.any()
    return _Signed(
        np.concatenate(rows),
        np.concatenate(num_words),
        np.concatenate(digests),
        np.concatenate(keys, axis=1),
        Sets(
            np.asarray(np.memmap(file, np.uint64, "r")) if some else np.empty(0, np.uint64),
            set_ends - np.concatenate(sizes),
            set_ends,
        ),
    )


def _verify(
    signed: _Signed, min_similarity: float, parents: Integers
) -> tuple[Integers, Similarities]:
    """Verified pairs of positions, some listed twice; clusters are joined in `parents`."""
    sets = signed.sets
    order = np.lexsort((signed.rows, signed.digests))
    order = order[sets.ends[order] > sets.starts[order]]
    _, first, group, counts = np.unique(
        signed.digests[order], return_index=True, return_inverse=True, return_counts=True
    )
    leaders = order[first][group]
    compared = (leaders == order) | (counts[group] <= MAX_COPIES)
    copies = np.stack([leaders, order], axis=1)[~compared]
    found = [verify_copies(copies, sets, min_similarity, parents)]
    places = order[compared]  # in the order of digests, so that row numbers do not matter
    keys = signed.keys[:, places]
    numbers = np.arange(places.size, dtype=np.uint64)
    for band in range(NUM_BANDS):
        entries = np.sort(keys[band].astype(np.uint64) << np.uint64(32) | numbers)
        found.append(
            verify_band(entries, keys, band, places, sets, min_similarity, MAX_BUCKET, parents)
        )
    pairs, similarities = zip(*found, strict=True)
    return np.concatenate(pairs), np.concatenate(similarities)


def _cluster(
    pairs: Integers,
    similarity: Similarities,
    signed: _Signed,
    clusters: Integers,
    kept_row: KeptRow,
) -> NearDuplicates:
    """Name rows by their numbers; find each cluster's first and kept row, and the chains to it."""
    places = np.flatnonzero(np.bincount(pairs.ravel(), minlength=clusters.size))
    places = places[np.argsort(signed.rows[places])]
    rows = signed.rows[places]
    nodes = np.arange(rows.size)
    numbers = np.zeros_like(clusters)
    numbers[places] = nodes
    edges = np.sort(numbers[pairs], axis=1)
    codes, once = np.unique(edges[:, 0] * rows.size + edges[:, 1], return_index=True)
    low, high = edges[once].T
    jaccard = similarity[once]

    _, first, cluster = np.unique(clusters[places], return_index=True, return_inverse=True)
    kept = first
    if kept_row == "longest":
        order = np.argsort(-signed.num_words[places], kind="stable")
        kept = order[np.unique(cluster[order], return_index=True)[1]]

    # A node of its own leads to all kept rows: one breadth-first walk finds every shortest chain.
    start = rows.size
    ends = np.append(low, np.full(kept.size, start)), np.append(high, kept)
    graph = csr_array((np.ones(ends[0].size), ends), shape=(start + 1, start + 1))
    _, via = breadth_first_order(graph, start, directed=False)
    via = np.where(via[:-1] == start, nodes, via[:-1])
    to_via = np.ones(rows.size)
    others = via != nodes
    codes_of = np.minimum(nodes, via) * rows.size + np.maximum(nodes, via)
    to_via[others] = jaccard[np.searchsorted(codes, codes_of[others])]

    members = map(
        Member,
        rows[first][cluster].tolist(),
        rows[kept][cluster].tolist(),
        rows[via].tolist(),
        to_via.tolist(),
    )
    return NearDuplicates(
        pa.table({"row": rows[low], "other": rows[high], "jaccard": jaccard}),
        dict(zip(rows.tolist(), members, strict=True)),
    )
