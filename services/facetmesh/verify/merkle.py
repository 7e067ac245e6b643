"""Merkle tree proofs, checked as RFC 6962 defines them and RFC 9162, section 2.1, spells them out."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING

from facetmesh.verify.errors import VerificationError

if TYPE_CHECKING:
    from collections.abc import Sequence

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()
"""The root of a tree without leaves."""


def leaf_hash(entry: bytes) -> bytes:
    """The hash of a leaf."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node. Its prefix differs from a leaf's, so that neither can pass for the other."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def verify_inclusion(*, leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Returns when the leaf stands at index in the tree (RFC 9162, 2.1.3.2).

    Args:
        leaf: The leaf's hash.
        index: Its place, from 0.
        size: How many leaves the tree has.
        proof: Node hashes from the leaf's sibling up to the root's child.
        root: The tree's root hash.

    Raises:
        VerificationError: PROOF_MALFORMED or NOT_INCLUDED.
    """
    _check_hashes((root,))
    if inclusion_root(leaf=leaf, index=index, size=size, proof=proof) != root:
        raise VerificationError("NOT_INCLUDED", f"The proof does not lead from entry {index} to the root hash.")


def inclusion_root(*, leaf: bytes, index: int, size: int, proof: Sequence[bytes]) -> bytes:
    """The root hash of a tree in which the leaf stands at index, if the proof is right (RFC 9162, 2.1.3.2).

    Args:
        leaf: The leaf's hash.
        index: Its place, from 0.
        size: How many leaves the tree has.
        proof: Node hashes from the leaf's sibling up to the root's child.

    Raises:
        VerificationError: PROOF_MALFORMED or NOT_INCLUDED.
    """
    _check_hashes((leaf, *proof))
    if not 0 <= index < size:
        raise VerificationError("NOT_INCLUDED", f"A log of {size} entries has none at {index}.")
    current = leaf
    for sibling, left in zip(proof, _sides(index, size - 1, len(proof)), strict=True):
        current = node_hash(sibling, current) if left else node_hash(current, sibling)
    return current


def verify_consistency(
    *, old_size: int, new_size: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]
) -> None:
    """Returns when the newer tree begins with all leaves of the older one (RFC 9162, 2.1.4.2).

    Args:
        old_size: How many leaves the older tree has.
        new_size: How many leaves the newer tree has.
        old_root: The older tree's root hash.
        new_root: The newer tree's root hash.
        proof: Node hashes in the order of RFC 6962; none when the sizes are equal or the older is empty.

    Raises:
        VerificationError: PROOF_MALFORMED or NOT_CONSISTENT.
    """
    _check_hashes((old_root, new_root, *proof))
    if not 0 <= old_size <= new_size:
        raise VerificationError("NOT_CONSISTENT", f"The log shrank from {old_size} entries to {new_size}.")
    if old_size in {0, new_size}:
        if proof:
            raise VerificationError("PROOF_MALFORMED", "There is nothing to prove between these two sizes.")
        if old_root != (new_root if old_size else EMPTY_ROOT):
            raise VerificationError("NOT_CONSISTENT", f"Two different logs of {old_size} entries: a fork.")
        return
    node, last = old_size - 1, new_size - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    if node and not proof:
        raise VerificationError("PROOF_MALFORMED", "The proof is empty.")
    # An older tree that is a whole subtree of the newer one needs no hash to begin with: its root is one.
    first, *path = proof if node else (old_root, *proof)
    older = newer = first
    for sibling, left in zip(path, _sides(node, last, len(path)), strict=True):
        if left:
            older = node_hash(sibling, older)
        newer = node_hash(sibling, newer) if left else node_hash(newer, sibling)
    if (older, newer) != (old_root, new_root):
        raise VerificationError("NOT_CONSISTENT", f"The log of {new_size} entries does not continue the older one.")


@lru_cache(maxsize=256)  # of events that are signed together, 16 at a time, the ways are always the same
def _sides(node: int, last: int, length: int) -> Sequence[bool]:
    """For each hash on the way up from a node to the root, whether it stands to the left.

    Args:
        node: The node's place on its level.
        last: The place of the last node on that level.
        length: How many hashes there are.

    Raises:
        VerificationError: PROOF_MALFORMED; the way has another length.
    """
    sides = []
    while last:
        sides.append(bool(node & 1) or node == last)
        while node == last and not node & 1:  # a right edge has no sibling on these levels
            node, last = node >> 1, last >> 1
        node, last = node >> 1, last >> 1
    if len(sides) != length:
        raise VerificationError("PROOF_MALFORMED", f"A proof of {length} hashes where {len(sides)} are needed.")
    return sides


def _check_hashes(hashes: Sequence[bytes]) -> None:
    for value in hashes:
        if len(value) != HASH_BYTES:
            raise VerificationError("PROOF_MALFORMED", f"A hash that does not have {HASH_BYTES} bytes.")
