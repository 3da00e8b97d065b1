"""MinHash signatures of sets of n-grams, and exact Jaccard over them, compiled.

Sets lie flat in one array of 64-bit hashes, each sorted and without repeats; `ends` holds where
each ends and `sizes` how many hashes it has. Positions, not row numbers, name a set here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from data_checks.text import Ends, Hashes, compiled

Integers = NDArray[np.int64]

_MIXER = np.uint64(0x9E3779B97F4A7C15)


@compiled
def sign(
    grams: Hashes, ends: Ends, factors: NDArray[np.uint32], shifts: NDArray[np.uint32], bands: int
) -> tuple[Hashes, Ends, Hashes, Hashes]:
    """Sorted sets of grams, their ends, a digest of each set, and its key in each band."""
    num_rows = factors.size // bands
    unique = np.empty_like(grams)
    unique_ends = np.empty_like(ends)
    digests = np.zeros(ends.size, np.uint64)
    keys = np.zeros((ends.size, bands), np.uint64)
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
            keys[text, band] = key
    return unique[:count].copy(), unique_ends, digests, keys


@compiled
def _jaccard(
    sets: Hashes, i: int, left_end: int, j: int, right_end: int, min_similarity: float
) -> float:
    """Jaccard similarity of two sorted sets, or 0 as soon as it must be under the least one."""
    total = left_end - i + right_end - j
    needed = min_similarity / (1.0 + min_similarity) * total - 1e-9
    shared = 0
    while i < left_end and j < right_end:
        if shared + min(left_end - i, right_end - j) < needed:
            return 0.0
        if sets[i] == sets[j]:
            shared += 1
            i += 1
            j += 1
        elif sets[i] < sets[j]:
            i += 1
        else:
            j += 1
    return shared / (total - shared)


@compiled
def similarities(
    pairs: Integers, sets: Hashes, ends: Ends, sizes: Integers, min_similarity: float
) -> NDArray[np.float64]:
    """Jaccard similarity of each pair of sets; it may be 0 where it is under the least one."""
    similarity = np.empty(len(pairs), np.float64)
    for p in range(len(pairs)):
        a, b = pairs[p, 0], pairs[p, 1]
        similarity[p] = _jaccard(
            sets, ends[a] - sizes[a], ends[a], ends[b] - sizes[b], ends[b], min_similarity
        )
    return similarity


@compiled
def verify_band(
    by_key: Integers,
    keys: Hashes,
    band: int,
    places: Integers,
    sets: Hashes,
    ends: Ends,
    sizes: Integers,
    min_similarity: float,
    max_bucket: int,
) -> tuple[Integers, NDArray[np.float64]]:
    """Verified pairs among sets that share a band key and shared none before.

    `by_key` sorts the sets by key, ties in a fixed order, and `places` maps a set to its
    place in `ends`. A set of an oversized bucket forgets its key (`keys` is changed), so that
    later bands compare it anew.
    """
    capacity = 1024
    pairs = np.empty((capacity, 2), np.int64)
    similarity = np.empty(capacity, np.float64)
    leaders = np.empty(max_bucket, np.int64)
    count = 0
    begin = 0
    while begin < by_key.size:
        key = keys[by_key[begin], band]
        end = begin + 1
        while end < by_key.size and keys[by_key[end], band] == key:
            end += 1
        crowded = end - begin > max_bucket
        num_leaders = 0
        for position in range(begin, end):
            b = by_key[position]
            right = places[b]
            matched = False
            for k in range(num_leaders):
                a = leaders[k]
                if not crowded and _share_key(keys, a, b, band):
                    continue
                left = places[a]
                found = _jaccard(
                    sets,
                    ends[left] - sizes[left],
                    ends[left],
                    ends[right] - sizes[right],
                    ends[right],
                    min_similarity,
                )
                if found < min_similarity:
                    continue
                if count == capacity:
                    capacity *= 2
                    pairs, similarity = _grown(pairs, similarity, capacity)
                pairs[count, 0] = left
                pairs[count, 1] = right
                similarity[count] = found
                count += 1
                matched = True
                if crowded:
                    break
            if num_leaders < max_bucket and not (crowded and matched):
                leaders[num_leaders] = b
                num_leaders += 1
        if crowded:
            for position in range(begin, end):
                keys[by_key[position], band] = np.uint64(by_key[position])
        begin = end
    return pairs[:count].copy(), similarity[:count].copy()


@compiled
def _share_key(keys: Hashes, a: int, b: int, bands: int) -> bool:
    """Whether two sets share a key in one of the first bands, so that they were compared."""
    for band in range(bands):  # noqa: SIM110  (numba has no generators)
        if keys[a, band] == keys[b, band]:
            return True
    return False


@compiled
def _grown(
    pairs: Integers, similarity: NDArray[np.float64], capacity: int
) -> tuple[Integers, NDArray[np.float64]]:
    """Copies with room for more."""
    more_pairs = np.empty((capacity, 2), np.int64)
    more = np.empty(capacity, np.float64)
    for p in range(similarity.size):  # a slice assignment would take seconds to compile
        more_pairs[p, 0] = pairs[p, 0]
        more_pairs[p, 1] = pairs[p, 1]
        more[p] = similarity[p]
    return more_pairs, more
