"""RFC 6962's vectors, and every proof of small trees: right ones hold, changed ones do not."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facetmesh.audit.merkle import Tree
from facetmesh.verify import VerificationError, verify_consistency, verify_inclusion
from facetmesh.verify.merkle import EMPTY_ROOT, leaf_hash

from .audit_world import Leaves

# From certificate-transparency-go's tests.
INPUTS = [bytes.fromhex(text) for text in (
    "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f",
)]  # fmt: skip
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
INCLUSION = {
    (0, 1): [],
    (0, 8): ["96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
             "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
             "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"],
    (5, 8): ["bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
             "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
             "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"],
    (2, 3): ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"],
}  # fmt: skip
CONSISTENCY = {
    (1, 1): [],
    (1, 8): INCLUSION[0, 8],
    (6, 8): ["0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
             "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
             "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"],
    (2, 5): ["5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
             "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"],
}  # fmt: skip


@pytest.fixture(scope="module")
def known() -> Leaves:
    """The RFC's tree of eight."""
    return Leaves([leaf_hash(data) for data in INPUTS])


@pytest.fixture(scope="module")
def leaves() -> Leaves:
    """A tree of 600 different leaves: three tiles, on two levels."""
    return Leaves([leaf_hash(b"%d" % number) for number in range(600)])


def test_known_roots(known: Leaves) -> None:
    assert Tree(known, 0).root() == EMPTY_ROOT
    assert [Tree(known, size).root().hex() for size in range(1, 9)] == ROOTS


@pytest.mark.parametrize(("index", "size"), INCLUSION)
def test_known_inclusion(known: Leaves, index: int, size: int) -> None:
    proof = Tree(known, size).inclusion(index)
    assert [one.hex() for one in proof] == INCLUSION[index, size]
    included(known, index, size, proof)


@pytest.mark.parametrize(("old", "new"), CONSISTENCY)
def test_known_consistency(known: Leaves, old: int, new: int) -> None:
    proof = Tree(known, new).consistency(old)
    assert [one.hex() for one in proof] == CONSISTENCY[old, new]
    continues(known, old, new, proof)


def every_inclusion(leaves: Leaves, sizes: range) -> None:
    """Each leaf of each size."""
    for size in sizes:
        for index in range(size):
            included(leaves, index, size, Tree(leaves, size).inclusion(index))


def test_every_inclusion_up_to_128(leaves: Leaves) -> None:
    every_inclusion(leaves, range(1, 129))


@pytest.mark.full
def test_every_inclusion_up_to_1024() -> None:
    every_inclusion(Leaves([leaf_hash(b"%d" % number) for number in range(1024)]), range(129, 1025))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_inclusion_across_tiles(leaves: Leaves, data: st.DataObject) -> None:
    size = data.draw(st.integers(257, 600))
    index = data.draw(st.integers(0, size - 1))
    included(leaves, index, size, Tree(leaves, size).inclusion(index))


def test_every_consistency_up_to_64(leaves: Leaves) -> None:
    for new in range(1, 65):
        for old in range(1, new + 1):
            continues(leaves, old, new, Tree(leaves, new).consistency(old))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_consistency_across_tiles(leaves: Leaves, data: st.DataObject) -> None:
    new = data.draw(st.integers(257, 600))
    old = data.draw(st.integers(1, new))
    continues(leaves, old, new, Tree(leaves, new).consistency(old))


@pytest.mark.parametrize("sizes", [range(1, 11), pytest.param(range(11, 33), marks=pytest.mark.full)])
def test_every_changed_bit_of_an_inclusion_is_noticed(leaves: Leaves, sizes: range) -> None:
    for size in sizes:
        root = leaves.root(size)
        for index in range(size):
            honest = [leaves.hashes[index], root, *Tree(leaves, size).inclusion(index)]
            for leaf, changed_root, *proof in one_bit_changed(honest):
                with pytest.raises(VerificationError, match="does not lead"):
                    verify_inclusion(leaf=leaf, index=index, size=size, proof=proof, root=changed_root)


@pytest.mark.parametrize("sizes", [range(2, 9), pytest.param(range(9, 33), marks=pytest.mark.full)])
def test_every_changed_bit_of_a_consistency_is_noticed(leaves: Leaves, sizes: range) -> None:
    for new in sizes:
        for old in range(1, new):
            honest = [leaves.root(old), leaves.root(new), *Tree(leaves, new).consistency(old)]
            for old_root, new_root, *proof in one_bit_changed(honest):
                with pytest.raises(VerificationError) as refusal:
                    verify_consistency(
                        old_size=old, new_size=new, old_root=old_root, new_root=new_root, proof=proof
                    )
                assert refusal.value.reason == "NOT_CONSISTENT"


def test_a_proof_holds_nowhere_else(leaves: Leaves) -> None:
    for size in range(2, 20):
        for index in range(size):
            proof = Tree(leaves, size).inclusion(index)
            for other in set(range(-1, size + 1)) - {index}:
                with pytest.raises(VerificationError):
                    verify_inclusion(
                        leaf=leaves.hashes[index], index=other, size=size, proof=proof, root=leaves.root(size)
                    )


@pytest.mark.parametrize("change", [lambda proof: proof[:-1], lambda proof: [*proof, bytes(32)], lambda _: []])
def test_proofs_of_another_length(leaves: Leaves, change: object) -> None:
    assert callable(change)
    tree = Tree(leaves, 21)
    with pytest.raises(VerificationError) as refusal:
        included(leaves, 3, 21, change(tree.inclusion(3)))
    assert refusal.value.reason == "PROOF_MALFORMED"
    with pytest.raises(VerificationError) as refusal:
        continues(leaves, 10, 21, change(tree.consistency(10)))
    assert refusal.value.reason == "PROOF_MALFORMED"


def test_hashes_of_another_length(leaves: Leaves) -> None:
    with pytest.raises(VerificationError, match="32 bytes"):
        included(leaves, 0, 2, [leaves.hashes[1] + b"\0"])


def test_sizes_that_cannot_be(leaves: Leaves) -> None:
    root = leaves.root(4)
    for old, new, proof, reason in (
        (5, 4, [], "NOT_CONSISTENT"), (-1, 4, [], "NOT_CONSISTENT"), (4, 4, [root], "PROOF_MALFORMED"),
    ):  # fmt: skip
        with pytest.raises(VerificationError) as refusal:
            verify_consistency(old_size=old, new_size=new, old_root=root, new_root=root, proof=proof)
        assert refusal.value.reason == reason


def test_a_fork_at_the_same_size(leaves: Leaves) -> None:
    with pytest.raises(VerificationError, match="fork"):
        verify_consistency(
            old_size=4, new_size=4, old_root=bytes(32), new_root=leaves.root(4), proof=[]
        )


def test_every_log_continues_the_empty_one(leaves: Leaves) -> None:
    verify_consistency(old_size=0, new_size=4, old_root=EMPTY_ROOT, new_root=leaves.root(4), proof=[])
    with pytest.raises(VerificationError, match="fork"):
        verify_consistency(old_size=0, new_size=4, old_root=bytes(32), new_root=leaves.root(4), proof=[])


def included(leaves: Leaves, index: int, size: int, proof: list[bytes]) -> None:
    """Verifies an inclusion proof."""
    verify_inclusion(leaf=leaves.hashes[index], index=index, size=size, proof=proof, root=leaves.root(size))


def continues(leaves: Leaves, old: int, new: int, proof: list[bytes]) -> None:
    """Verifies a consistency proof."""
    verify_consistency(
        old_size=old, new_size=new, old_root=leaves.root(old), new_root=leaves.root(new), proof=proof
    )


def one_bit_changed(values: list[bytes]) -> list[list[bytes]]:
    """The values, once for each of their bits, with that bit changed."""
    changed = []
    for place, value in enumerate(values):
        for bit in range(8 * len(value)):
            number = int.from_bytes(value, "big") ^ (1 << bit)
            changed.append([*values[:place], number.to_bytes(len(value), "big"), *values[place + 1 :]])
    return changed
