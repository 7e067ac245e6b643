"""The log as files: what tlog-tiles says a path means, and that the files are a log."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facetmesh.audit.files import LogFiles, Tile
from facetmesh.audit.merkle import Tree
from facetmesh.kit.errors import NotFound
from facetmesh.verify import open_checkpoint
from facetmesh.verify.merkle import leaf_hash

if TYPE_CHECKING:
    from .audit_world import World


@pytest.fixture
def world(audit_world: World) -> World:
    """Services and their keys, with each of the stores."""
    return audit_world


@pytest.mark.parametrize(
    ("path", "tile"),
    [
        ("tile/0/000", Tile(0, 0, 256)),
        ("tile/3/999.p/1", Tile(3, 999, 1)),
        ("tile/entries/x001/x234/067", Tile(None, 1234067, 256)),
        ("tile/0/x001/000.p/255", Tile(0, 1000, 255)),
    ],
)
def test_paths(path: str, tile: Tile) -> None:
    assert Tile.parse(path) == tile
    assert tile.path == path


@pytest.mark.parametrize(
    "path",
    [
        "", "tile", "tile/0", "tile/0/0", "tile/0/0000", "tile/00/000", "tile/0/x000/000", "tile/0/001/000",
        "tile/0/000.p/0", "tile/0/000.p/256", "tile/0/000.p/01", "tile/0/000.p/", "tile/-1/000", "tile/0/000/",
        "tile/entries/../../secrets", "tile/0/x001/067\n", "tile/0/٣٣٣",
    ],
)  # fmt: skip
def test_what_is_no_path(path: str) -> None:
    tile = Tile.parse(path)
    assert tile is None or (tile.width == 0 and path.endswith(".p/0"))


@given(st.one_of(st.none(), st.integers(0, 63)), st.integers(0, 10**15), st.integers(1, 256))
def test_a_path_leads_back(level: int | None, number: int, width: int) -> None:
    assert Tile.parse(Tile(level, number, width).path) == Tile(level, number, width)


async def test_the_files_are_the_log(world: World) -> None:
    await world.fill(600)
    async with world.log() as (log, store):
        files = LogFiles(log, store)
        checkpoint = open_checkpoint((await files.read("checkpoint")).decode(), world.verifier_key)
        assert checkpoint.size == 603
        leaves = []
        for tile in (Tile(None, 0, 256), Tile(None, 1, 256), Tile(None, 2, 603 - 512)):
            data = await files.read(tile.path)
            while data:
                length = int.from_bytes(data[:2], "big")
                leaves.append(leaf_hash(data[2 : 2 + length]))
                data = data[2 + length :]
        assert len(leaves) == 603
        hashes = b"".join(leaves)
        for tile in (Tile(0, 0, 256), Tile(0, 1, 256), Tile(0, 2, 91), Tile(0, 0, 7)):
            assert await files.read(tile.path) == hashes[tile.number * 8192 :][: tile.width * 32]

        class Fetched:
            """Tiles as they were fetched."""

            def __init__(self) -> None:
                self.tiles: dict[tuple[int, int], bytes] = {}

            def tile(self, level: int, number: int) -> bytes:
                return self.tiles.get((level, number), b"")

        fetched = Fetched()
        fetched.tiles.update(Tree(fetched, 0).extended(leaves))
        assert Tree(fetched, 603).root() == checkpoint.root
        for path in ("tile/0/002", "tile/0/002.p/92", "tile/0/003.p/1", "tile/1/000", "tile/2/000.p/1", "nothing"):
            with pytest.raises(NotFound) as error:
                await files.read(path)
            assert error.value.reason == "FILE_NOT_FOUND"
