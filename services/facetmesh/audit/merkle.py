"""The log's Merkle tree (RFC 6962), kept as tiles (C2SP tlog-tiles).

A tile holds up to 256 consecutive hashes of one level in eight: those of level L
are the roots of complete subtrees of 256**L leaves. The levels between are
computed from it when they are asked for. So a log of ten million entries is some
39,000 rows of 8 KiB, an append touches only the tiles on the right edge, and a
proof reads a tile for each of its hashes.

A tree here is its tiles and a size. Tiles only grow at their end, so every
older tree can still be read out of the newer one's tiles.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

from facetmesh.kit.errors import Internal
from facetmesh.verify.merkle import EMPTY_ROOT, HASH_BYTES, node_hash

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

HEIGHT = 8
"""Levels of the tree in one level of tiles."""
WIDTH = 1 << HEIGHT
"""Hashes in a full tile."""


class Tiles(Protocol):
    """Where tiles are read."""

    def tile(self, level: int, number: int) -> bytes:
        """The tile's hashes one after the other, 32 bytes each; empty when there is no such tile."""
        ...


class Tree:
    """The tree of the first `size` entries.

    Args:
        tiles: The tiles, which may belong to a larger tree.
        size: How many leaves it has.
    """

    def __init__(self, tiles: Tiles, size: int) -> None:
        self._tiles = tiles
        self.size = size
        """How many leaves it has."""

    def extended(self, leaves: Sequence[bytes]) -> Mapping[tuple[int, int], bytes]:
        """The tiles, by level and number, that are new or longer once these leaf hashes follow the last."""
        changed: dict[tuple[int, int], bytes] = {}
        level, start, hashes = 0, self.size, list(leaves)
        while hashes:
            number, kept = divmod(start, WIDTH)
            row = b"".join([self._tiles.tile(level, number)[: kept * HASH_BYTES] if kept else b"", *hashes])
            hashes = []
            for offset in range(0, len(row), WIDTH * HASH_BYTES):
                tile = row[offset : offset + WIDTH * HASH_BYTES]
                changed[level, number + offset // (WIDTH * HASH_BYTES)] = tile
                if len(tile) == WIDTH * HASH_BYTES:
                    hashes.append(_root(tile))
            level, start = level + 1, number
        return changed

    def root(self) -> bytes:
        """The root hash."""
        return self._range(0, self.size) if self.size else EMPTY_ROOT

    def inclusion(self, index: int) -> list[bytes]:
        """The proof that a leaf is in the tree: PATH(index, D[size]) of RFC 6962, 2.1.1.

        Raises:
            ValueError: There is no leaf at index.
        """
        if not 0 <= index < self.size:
            raise ValueError(f"no leaf {index} in a tree of {self.size}")
        path: list[bytes] = []
        start, end = 0, self.size
        while end - start > 1:
            middle = start + _split(end - start)
            if index < middle:
                path.append(self._range(middle, end))
                end = middle
            else:
                path.append(self._range(start, middle))
                start = middle
        return path[::-1]

    def consistency(self, old_size: int) -> list[bytes]:
        """The proof that the tree continues an older one: PROOF(old_size, D[size]) of RFC 6962, 2.1.2.

        Raises:
            ValueError: The older tree is empty, or larger than this one.
        """
        if not 0 < old_size <= self.size:
            raise ValueError(f"no tree of {old_size} in one of {self.size}")
        path: list[bytes] = []
        start, end = 0, self.size
        while end != old_size:
            middle = start + _split(end - start)
            if old_size <= middle:
                path.append(self._range(middle, end))
                end = middle
            else:
                path.append(self._range(start, middle))
                start = middle
        # From 0 on it is the older tree's root itself, which the verifier has.
        return [*([self._range(start, end)] if start else []), *reversed(path)]

    def _range(self, start: int, end: int) -> bytes:
        """MTH(D[start:end]) of RFC 6962, for the ranges that its recursion leads to."""
        size = end - start
        if size & (size - 1) == 0:
            return self._subtree(size.bit_length() - 1, start // size)
        middle = start + _split(size)
        return node_hash(self._range(start, middle), self._range(middle, end))

    def _subtree(self, level: int, index: int) -> bytes:
        """The root of the complete subtree of 2**level leaves that has index such subtrees before it."""
        tile_level, height = divmod(level, HEIGHT)
        width = 1 << height
        number, first = divmod(index * width, WIDTH)
        hashes = self._tiles.tile(tile_level, number)[first * HASH_BYTES : (first + width) * HASH_BYTES]
        if len(hashes) != width * HASH_BYTES:
            raise Internal("The log's store lacks a part of the tree.", reason="LOG_CORRUPT")
        return _root(hashes)


def _split(size: int) -> int:
    """The largest power of two below size."""
    return 1 << ((size - 1).bit_length() - 1)


@lru_cache(maxsize=1024)
def _root(row: bytes) -> bytes:
    """The root over a power of two of hashes that stand one after the other.

    Kept for a while (4 MiB at most): the subtrees beside the right edge are asked
    for with each commit, and those beside an entry with each proof.
    """
    hashes = [row[i : i + HASH_BYTES] for i in range(0, len(row), HASH_BYTES)]
    while len(hashes) > 1:
        hashes = [node_hash(left, right) for left, right in zip(hashes[::2], hashes[1::2], strict=True)]
    return hashes[0]
