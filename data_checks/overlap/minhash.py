"""MinHash signatures of sets of n-grams, and exact Jaccard over the sets, compiled.

Positions, not row numbers, name a set here.
"""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from data_checks.text import Ends, Hashes, compiled

Integers = NDArray[np.int64]
Keys = NDArray[np.uint32]
Similarities = NDArray[np.float64]
Values = TypeVar("Values", Integers, Similarities)

_MIXER = np.uint64(0x9E3779B97F4A7C15)


class Sets(NamedTuple):
    """Sets of 64-bit hashes, flat: each is sorted, without repeats, from its start to its end."""

    hashes: Hashes
    starts: Ends
    ends: Ends


@compiled
def sign(
    grams: Hashes, ends: Ends, factors: NDArray[np.uint32], shifts: NDArray[np.uint32], bands: int
) -> tuple[Hashes, Ends, Hashes, Keys]:
    """Sorted sets of grams, their ends, a digest of each set, and its key by band and text."""
    num_rows = factors.size // bands
    unique = np.empty_like(grams)
    unique_ends = np.empty_like(ends)
    digests = np.zeros(ends.size, np.uint64)
    keys = np.zeros((bands, ends.size), np.uint32)
    lowest = np.empty(factors.size, np.uint32)
    count = 0
    start = 0
    for text in range(ends.size):
        own = np.sort(grams[start : ends[text]])
        start = ends[text]
        lowest.fill(np.uint32(0xFFFFFFFF))
        digest = np.uint64(own.size)
        previous = np.uint64(0)
        for position in range(own.size):
            gram = own[position]
            if position > 0 and gram == previous:
                continue
            previous = gram
            unique[count] = gram
            count += 1
            digest = (digest ^ gram) * _MIXER
            digest ^= digest >> np.uint64(29)
            short = np.uint32(gram >> np.uint64(32))
            for k in range(factors.size):
                lowest[k] = min(lowest[k], np.uint32(factors[k] * short + shifts[k]))
        digests[text] = digest
        unique_ends[text] = count
        for band in range(bands):
            key = np.uint64(band + 1)
            for k in range(band * num_rows, (band + 1) * num_rows):
                key = (key ^ np.uint64(lowest[k])) * _MIXER
                key ^= key >> np.uint64(29)
            keys[band, text] = np.uint32(key >> np.uint64(32))
    return unique[:count].copy(), unique_ends, digests, keys


@compiled
def _jaccard(sets: Sets, a: int, b: int, min_similarity: float) -> float:
    """Jaccard similarity of two sets, or 0 as soon as it must be under the least one."""
    i, left_end = sets.starts[a], sets.ends[a]
    j, right_end = sets.starts[b], sets.ends[b]
    total = left_end - i + right_end - j
    needed = min_similarity / (1.0 + min_similarity) * total - 1e-9
    shared = 0
    while i < left_end and j < right_end:
        if shared + min(left_end - i, right_end - j) < needed:
            return 0.0
        left, right = sets.hashes[i], sets.hashes[j]
        if left == right:
            shared += 1
        i += left <= right
        j += right <= left
    return float(shared / (total - shared))


@compiled
def _root(parents: Integers, a: int) -> int:
    """The set that names the cluster of a set, with shorter paths on the way."""
    while parents[a] != a:
        parents[a] = parents[parents[a]]
        a = parents[a]
    return a


@compiled
def roots(parents: Integers) -> Integers:
    """The set that names the cluster, for each set."""
    found = np.empty_like(parents)
    for a in range(parents.size):
        found[a] = _root(parents, a)
    return found


@compiled
def verify_copies(
    pairs: Integers, sets: Sets, min_similarity: float, parents: Integers
) -> tuple[Integers, Similarities]:
    """The pairs that are similar enough; their clusters are joined in `parents`."""
    verified = np.empty_like(pairs)
    similarity = np.empty(len(pairs), np.float64)
    count = 0
    for p in range(len(pairs)):
        a, b = pairs[p]
        found = _jaccard(sets, a, b, min_similarity)
        if found >= min_similarity:
            verified[count, 0], verified[count, 1] = a, b
            similarity[count] = found
            count += 1
            parents[_root(parents, b)] = _root(parents, a)
    return verified[:count].copy(), similarity[:count].copy()


@compiled
def verify_band(
    entries: Hashes,
    keys: Keys,
    band: int,
    places: Integers,
    sets: Sets,
    min_similarity: float,
    max_bucket: int,
    parents: Integers,
) -> tuple[Integers, Similarities]:
    """Verified pairs among candidates that share a band key and shared none before.

    `entries` are sorted and hold the key in the upper half, the candidate in the lower; `places`
    maps a candidate to its set. A candidate in an oversized bucket is compared with leaders of the
    bucket up to its first match, which is listed only if it joins two clusters; it then forgets
    its key (`keys` is changed), so that later bands compare it anew.
    """
    capacity = 1024
    pairs = np.empty((capacity, 2), np.int64)
    similarity = np.empty(capacity, np.float64)
    leaders = np.empty(max_bucket, np.int64)
    count = 0
    begin = 0
    while begin < entries.size:
        key = entries[begin] >> np.uint64(32)
        end = begin + 1
        while end < entries.size and entries[end] >> np.uint64(32) == key:
            end += 1
        if end == begin + 1:
            begin = end
            continue
        crowded = end - begin > max_bucket
        num_leaders = 0
        for position in range(begin, end):
            b = int(entries[position] & np.uint64(0xFFFFFFFF))
            matched = False
            for k in range(num_leaders):
                a = leaders[k]
                if not crowded and _share_key(keys, a, b, band):
                    continue
                found = _jaccard(sets, places[a], places[b], min_similarity)
                if found < min_similarity:
                    continue
                matched = True
                left, right = _root(parents, places[a]), _root(parents, places[b])
                parents[right] = left
                if not crowded or left != right:
                    if count == capacity:
                        capacity *= 2
                        pairs, similarity = grown(pairs, similarity, capacity)
                    pairs[count, 0] = places[a]
                    pairs[count, 1] = places[b]
                    similarity[count] = found
                    count += 1
                if crowded:
                    break
            if num_leaders < max_bucket and not (crowded and matched):
                leaders[num_leaders] = b
                num_leaders += 1
        if crowded:
            for position in range(begin, end):
                b = int(entries[position] & np.uint64(0xFFFFFFFF))
                keys[band, b] = np.uint32(b)
        begin = end
    return pairs[:count].copy(), similarity[:count].copy()


@compiled
def _share_key(keys: Keys, a: int, b: int, bands: int) -> bool:
    """Whether two candidates share a key in one of the first bands, so that they were compared."""
    for band in range(bands):  # noqa: SIM110  (numba has no generators)
        if keys[band, a] == keys[band, b]:
            return True
    return False


@compiled
def grown(pairs: Integers, values: Values, capacity: int) -> tuple[Integers, Values]:
    """Copies with room for more pairs and their values."""
    more_pairs = np.empty((capacity, 2), np.int64)
    more = np.empty(capacity, values.dtype)
    for p in range(values.size):  # a slice assignment would take seconds to compile
        more_pairs[p, 0] = pairs[p, 0]
        more_pairs[p, 1] = pairs[p, 1]
        more[p] = values[p]
    return more_pairs, more
