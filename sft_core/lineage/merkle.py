"""Merkle trees over SHA-256, as in RFC 9162: one root for all leaves, and proofs against it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence


def leaf_hash(data: bytes) -> bytes:
    """32 bytes; a leaf can never pass for an inner node."""
    return hashlib.sha256(b"\x00" + data).digest()


def _node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def merkle_root(leaves: Sequence[bytes]) -> bytes:
    """Root over leaf hashes in their order; without leaves the SHA-256 of nothing."""
    *_, top = _levels(leaves)
    return top[0] if top else hashlib.sha256(b"").digest()


def inclusion_path(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """The neighbours, from the bottom up, that lead from the leaf at `index` to the root."""
    path = []
    for level in _levels(leaves):
        if index ^ 1 < len(level):
            path.append(level[index ^ 1])
        index //= 2
    return path


def root_by_path(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes | None:
    """The root that a path leads to; None where it has not as many neighbours as it must."""
    if not 0 <= index < size:
        return None
    node, last, neighbours = leaf, size - 1, iter(path)
    while last:
        if index ^ 1 <= last:
            neighbour = next(neighbours, None)
            if neighbour is None:
                return None
            node = _node_hash(neighbour, node) if index % 2 else _node_hash(node, neighbour)
        index, last = index // 2, last // 2
    return node if next(neighbours, None) is None else None


def _levels(leaves: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """From the leaves up to the root; a node without a neighbour goes up as it is."""
    yield leaves
    while len(leaves) > 1:
        pairs = zip(leaves[::2], leaves[1::2], strict=False)
        alone = leaves[-1:] if len(leaves) % 2 else []
        leaves = [*(_node_hash(left, right) for left, right in pairs), *alone]
        yield leaves


def grown(peaks: Sequence[bytes], size: int, leaf: bytes) -> list[bytes]:
    """The peaks after one more leaf.

    Args:
        peaks: roots of the full trees that a tree is made of, the largest first: as many as the
            binary form of its size has ones.
        size: leaves so far.
        leaf: hash of the new one.
    """
    kept, node = list(peaks), leaf
    while size % 2:
        node = _node_hash(kept.pop(), node)
        size //= 2
    return [*kept, node]


def root_of_peaks(peaks: Sequence[bytes]) -> bytes:
    """The root of the whole tree, the same as `merkle_root` of its leaves."""
    if not peaks:
        return hashlib.sha256(b"").digest()
    *rest, node = peaks
    for peak in reversed(rest):
        node = _node_hash(peak, node)
    return node
