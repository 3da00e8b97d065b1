import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sft_core.lineage.merkle import (
    grown,
    inclusion_path,
    leaf_hash,
    merkle_root,
    root_by_path,
    root_of_peaks,
)

LEAVES = st.lists(st.binary(max_size=4), max_size=40).map(lambda found: [*map(leaf_hash, found)])


def node(left, right):
    return hashlib.sha256(b"\x01" + left + right).digest()


def test_the_root_is_the_one_of_rfc_9162():
    """Split at the largest power of two below the size; by hand for five leaves."""
    a, b, c, d, e = (hashlib.sha256(b"\x00" + bytes([n])).digest() for n in range(5))
    leaves = [leaf_hash(bytes([n])) for n in range(5)]
    assert leaves == [a, b, c, d, e]
    assert merkle_root([]) == hashlib.sha256(b"").digest()
    assert merkle_root([a]) == a
    assert merkle_root([a, b, c]) == node(node(a, b), c)
    assert merkle_root(leaves) == node(node(node(a, b), node(c, d)), e)


@given(LEAVES)
def test_grown_one_by_one_it_is_the_same_tree(leaves):
    peaks = []
    for size, leaf in enumerate(leaves):
        peaks = grown(peaks, size, leaf)
        assert root_of_peaks(peaks) == merkle_root(leaves[: size + 1])
    assert len(peaks) == bin(len(leaves)).count("1")


@given(LEAVES.filter(bool), st.data())
def test_a_path_leads_to_the_root_from_its_own_leaf_and_place_alone(leaves, data):
    index = data.draw(st.integers(0, len(leaves) - 1))
    root, path, size = merkle_root(leaves), inclusion_path(leaves, index), len(leaves)
    assert root_by_path(leaves[index], index, size, path) == root
    assert root_by_path(leaf_hash(b"another"), index, size, path) != root
    assert root_by_path(leaves[index], index, size, [*path, root]) is None
    if path:
        assert root_by_path(leaves[index], index, size, path[:-1]) is None
        changed = [*path[:-1], leaf_hash(b"changed")]
        assert root_by_path(leaves[index], index, size, changed) != root


@pytest.mark.parametrize("index", [-1, 3])
def test_a_place_outside_the_tree_has_no_path(index):
    leaves = [leaf_hash(b"a"), leaf_hash(b"b"), leaf_hash(b"c")]
    assert root_by_path(leaves[0], index, 3, []) is None
