"""The tree of tiles: however it grew, it is the same tree, and it names what is missing."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facetmesh.audit.merkle import WIDTH, Tree
from facetmesh.kit.errors import Internal
from facetmesh.verify.merkle import leaf_hash, node_hash

from .audit_world import Leaves

HASHES = [leaf_hash(b"%d" % number) for number in range(700)]


def plain_root(hashes: list[bytes]) -> bytes:
    """MTH of RFC 6962, word for word."""
    if len(hashes) < 2:
        return hashes[0] if hashes else hashlib.sha256().digest()
    k = 1
    while k * 2 < len(hashes):
        k *= 2
    return node_hash(plain_root(hashes[:k]), plain_root(hashes[k:]))


def test_every_root_up_to_300_is_the_definitions() -> None:
    leaves = Leaves(HASHES)
    for size in range(301):
        assert Tree(leaves, size).root() == plain_root(HASHES[:size])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 300), min_size=1, max_size=6))
def test_it_does_not_matter_in_which_steps_it_grew(steps: list[int]) -> None:
    grown = Leaves([])
    size = 0
    for step in steps:
        more = HASHES[size : size + step]
        grown.tiles.update(Tree(grown, size).extended(more))
        size += len(more)
    assert grown.tiles == Leaves(HASHES[:size], step=size).tiles


def test_two_levels_of_tiles() -> None:
    """65,536 leaves fill the second level; the root is that level's."""
    count = WIDTH * WIDTH
    hashes = [leaf_hash(number.to_bytes(4, "big")) for number in range(count + 1)]
    leaves = Leaves(hashes, step=10_000)
    assert {level for level, _ in leaves.tiles} == {0, 1, 2}
    assert len(leaves.tiles[1, 0]) == WIDTH * 32
    assert Tree(leaves, count).root() == leaves.tiles[2, 0] == plain_root(hashes[:count])
    assert Tree(leaves, count + 1).root() == node_hash(plain_root(hashes[:count]), hashes[count])


def test_only_the_right_edge_changes() -> None:
    changed = Tree(Leaves(HASHES[:600]), 600).extended(HASHES[600:610])
    assert set(changed) == {(0, 2)}
    changed = Tree(Leaves(HASHES[:500]), 500).extended(HASHES[500:520])
    assert set(changed) == {(0, 1), (0, 2), (1, 0)}


def test_nothing_added_changes_nothing() -> None:
    assert Tree(Leaves(HASHES[:5]), 5).extended([]) == {}


def test_an_edge_that_is_too_long_is_cut() -> None:
    """What a larger tree left behind does not get into a smaller one's next tile."""
    assert Tree(Leaves(HASHES[:600]), 520).extended(HASHES[520:530])[0, 2] == b"".join(HASHES[512:530])


@pytest.mark.parametrize("index", [-1, 7])
def test_no_proof_for_what_is_not_there(index: int) -> None:
    with pytest.raises(ValueError, match="no leaf"):
        Tree(Leaves(HASHES[:7]), 7).inclusion(index)


@pytest.mark.parametrize("old", [0, 8])
def test_no_proof_for_trees_that_never_were(old: int) -> None:
    with pytest.raises(ValueError, match="no tree"):
        Tree(Leaves(HASHES[:7]), 7).consistency(old)


def test_a_missing_tile_is_an_error() -> None:
    leaves = Leaves(HASHES)
    del leaves.tiles[0, 1]
    with pytest.raises(Internal) as error:
        Tree(leaves, 700).inclusion(300)
    assert error.value.reason == "LOG_CORRUPT"
