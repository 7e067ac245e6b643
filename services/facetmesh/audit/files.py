"""The log as files, laid out as C2SP's tlog-tiles has it: whoever has them can verify all of it with other tools.

    checkpoint                     the newest signed checkpoint
    tile/{level}/{number}          256 hashes
    tile/entries/{number}          256 entries, each after its length in two bytes
    …/{number}.p/{width}           the first `width` of a tile that has no more, or had no more once

Numbers are written in groups of three digits, all but the last with an x before: 1234067 is x001/x234/067.

Source: https://c2sp.org/tlog-tiles.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from facetmesh.audit.database import RECORD_BYTES
from facetmesh.audit.merkle import WIDTH
from facetmesh.kit.errors import NotFound
from facetmesh.verify.merkle import HASH_BYTES

if TYPE_CHECKING:
    from facetmesh.audit.log import Log

CHECKPOINT = "checkpoint"
_PATH = re.compile(
    r"tile/(?P<level>entries|[0-9]{1,2})/(?P<number>(?:x[0-9]{3}/){0,5}[0-9]{3})(?:\.p/(?P<width>[0-9]{1,3}))?"
)


class TileStore(Protocol):
    """Where the log's parts are. Every method raises Unavailable when the store does not work."""

    async def tile(self, level: int, number: int) -> bytes:
        """A tile's hashes, 32 bytes each; empty when there is no such tile."""
        ...

    async def bundle(self, number: int) -> bytes:
        """A bundle's entries, each with its length; empty when there is no such bundle."""
        ...


@dataclass(frozen=True, slots=True)
class Tile:
    """Which file of the log."""

    level: int | None
    """Of the hashes, from 0; None for the entries themselves."""
    number: int
    width: int
    """How many hashes or entries."""

    @classmethod
    def parse(cls, path: str) -> Tile | None:
        """The tile of a path; None when it is none."""
        match = _PATH.fullmatch(path)
        if match is None:
            return None
        tile = cls(
            None if match["level"] == "entries" else int(match["level"]),
            int(re.sub("[x/]", "", match["number"])), int(match["width"] or WIDTH),
        )  # fmt: skip
        return tile if tile.path == path else None

    @property
    def path(self) -> str:
        """Where it is. Every tile has one path only."""
        digits = str(self.number)
        digits = digits.zfill(-(-len(digits) // 3) * 3)
        groups = [digits[at : at + 3] for at in range(0, len(digits), 3)]
        number = "/".join([*(f"x{group}" for group in groups[:-1]), groups[-1]])
        level = "entries" if self.level is None else self.level
        return f"tile/{level}/{number}" + (f".p/{self.width}" if self.width != WIDTH else "")


class LogFiles:
    """The log's files.

    Args:
        log: The log.
        store: Where its parts are.
    """

    def __init__(self, log: Log, store: TileStore) -> None:
        self._log = log
        self._store = store

    async def read(self, path: str) -> bytes:
        """What is in a file.

        Raises:
            NotFound: FILE_NOT_FOUND: the log has no such file, or not yet.
        """
        if path == CHECKPOINT:
            await self._log.refresh()
            return self._log.checkpoint.encode()
        tile = Tile.parse(path)
        data = b"" if tile is None or not tile.width else await self._tile(tile)
        if not data:
            raise NotFound("The log has no such file, or not yet.", reason="FILE_NOT_FOUND")
        return data

    async def _tile(self, tile: Tile) -> bytes:
        if tile.level is None:
            unit, data = RECORD_BYTES, await self._store.bundle(tile.number)
        else:
            unit, data = HASH_BYTES, await self._store.tile(tile.level, tile.number)
        wanted = data[: tile.width * unit]
        return wanted if len(wanted) == tile.width * unit else b""
