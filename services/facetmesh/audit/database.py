"""The log as tables: statements and transactions, the same for SQLite and PostgreSQL. One thread at a time may use it.

    tiles       the tree's hashes (`merkle`), 256 in a row
    bundles     the entries, 256 in a row, as C2SP tlog-tiles writes them
    events      beside each entry: its event's id, tenant, time and encrypted body
    head        size and root hash; the tiles must say the same

Tiles and bundles are for ever; a body is set to NULL when it expires. What is in
the log is what the store says: nothing is remembered between two calls.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from facetmesh.audit.merkle import WIDTH, Tree
from facetmesh.audit.migrations import migrate
from facetmesh.audit.records import Appended, Head, Row, Stored
from facetmesh.kit.errors import Internal
from facetmesh.verify.entry import ENTRY_BYTES
from facetmesh.verify.merkle import EMPTY_ROOT, leaf_hash

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from facetmesh.audit.connection import Connection
    from facetmesh.audit.merkle import Tiles

_LENGTH = ENTRY_BYTES.to_bytes(2, "big")
RECORD_BYTES = len(_LENGTH) + ENTRY_BYTES
"""Bytes of an entry in a bundle: its length in two bytes, then itself."""
_COLUMNS = "position, id, tenant, time_us, digest, body"
_ASKED_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Kept:
    """A row beside an entry, as it is."""

    index: int
    id: str
    tenant: str
    time_us: int
    digest: bytes
    body: bytes | None
    """None when it has expired."""
    checksum: int
    """What `checksum` gave when it was written."""


class LogDatabase:
    """The log's tables, which are made or brought up to date. Every method raises Unavailable when the store fails.

    Args:
        connection: The store.

    Raises:
        FailedPrecondition: A newer version of facetmesh wrote it.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        """The store."""
        migrate(connection)

    def stored_head(self) -> Head:
        """The head as the last commit left it."""
        rows = self.connection.query("SELECT size, root FROM head")
        return Head(*rows[0]) if rows else Head(0, EMPTY_ROOT)

    def head(self) -> Head:
        """The head, which is what the tiles say too.

        Raises:
            Internal: It is not: the store was changed. No checkpoint may be signed for it.
        """
        with self.connection.snapshot():
            return self._checked_head(self)

    def append(self, rows: Sequence[Row]) -> Appended:
        """Stores the rows whose ids are new, all or none, durably.

        Raises:
            Internal: The tiles on which the new root would rest were changed. Nothing was stored.
        """
        with self.connection.writing():
            edge = _Edge(self)
            head = self._checked_head(edge)
            fresh, reused = self._sorted_out(rows)
            if fresh:
                changed = Tree(edge, head.size).extended([leaf_hash(row.entry) for row in fresh])
                edge.tiles.update(changed)
                self.put_tiles(changed)
                self._store_entries(head.size, fresh)
                size = head.size + len(fresh)
                head = Head(size, Tree(edge, size).root())
                self._put("head (only_row, size, root)", "only_row", [(1, head.size, head.root)])
        return Appended(head, reused)

    def tree(self, size: int) -> Tree:
        """The tree of the first `size` entries, for one proof or root hash: reads no tile twice."""
        return Tree(_Edge(self), size)

    def put_tiles(self, tiles: Mapping[tuple[int, int], bytes]) -> None:
        """Writes tiles, by level and number, as a part of a transaction."""
        rows = [(*place, tile) for place, tile in tiles.items()]
        self._put("tiles (level, number, hashes)", "level, number", rows)

    def find(self, event_id: str) -> Stored | None:
        """The event with this id; None when there is none, or its body has expired."""
        found = self._events("id = ?", event_id)
        return found[0] if found else None

    def listed(
        self, tenant: str | None, *, since_us: int, before: tuple[int, int], limit: int
    ) -> list[Stored]:
        """The newest events of a time, the newest first.

        Args:
            tenant: Only this tenant's; of all when None.
            since_us: Not those before this time, in microseconds since the epoch.
            before: Only those before this time and, at the same time, this index.
            limit: At most this many.
        """
        where = "time_us >= ? AND (time_us, position) < (?, ?) ORDER BY time_us DESC, position DESC LIMIT ?"
        values = (since_us, *before, limit)
        if tenant is None:
            return self._events(where, *values)
        return self._events(f"tenant = ? AND {where}", tenant, *values)

    def after(self, tenant: str | None, *, start: int, limit: int) -> list[Stored]:
        """Events in the order of the log, from an index on; of one tenant, or of all when None."""
        where = "position >= ? ORDER BY position LIMIT ?"
        if tenant is None:
            return self._events(where, start, limit)
        return self._events(f"tenant = ? AND {where}", tenant, start, limit)

    def expire(self, tenant: str, before_us: int, limit: int) -> int:
        """Removes the bodies of a tenant's oldest events from before a time; returns how many."""
        with self.connection.writing():
            old = self._events("tenant = ? AND time_us < ? ORDER BY time_us LIMIT ?", tenant, before_us, limit)
            self.connection.execute_many(
                "UPDATE events SET body = NULL, checksum = ? WHERE position = ?",
                [(checksum(one.id, one.tenant, one.time_us, one.digest, None), one.index) for one in old],
            )
        return len(old)

    def tile(self, level: int, number: int) -> bytes:
        """The tile's hashes, 32 bytes each; empty when there is no such tile."""
        return self._blob("SELECT hashes FROM tiles WHERE level = ? AND number = ?", level, number)

    def tiles(self) -> list[tuple[int, int]]:
        """The level and number of every tile."""
        return [(level, number) for level, number in self.connection.query("SELECT level, number FROM tiles")]

    def bundle(self, number: int) -> bytes:
        """Up to 256 records of RECORD_BYTES each; empty when there is no such bundle."""
        return self._blob("SELECT entries FROM bundles WHERE number = ?", number)

    def bundles(self) -> list[int]:
        """The number of every bundle."""
        return [number for (number,) in self.connection.query("SELECT number FROM bundles")]

    def extent(self) -> int:
        """How many entries there may be at most, whatever the head says."""
        ((bundles,),) = self.connection.query("SELECT max(number) FROM bundles")
        ((events,),) = self.connection.query("SELECT max(position) FROM events")
        return max(((-1 if bundles is None else bundles) + 1) * WIDTH, (-1 if events is None else events) + 1)

    def kept(self, start: int, end: int) -> Iterable[Kept]:
        """What is kept beside the entries from start to before end, expired or not, in order."""
        query = f"SELECT {_COLUMNS}, checksum FROM events WHERE position >= ? AND position < ? ORDER BY position"  # noqa: S608 - our words
        return [Kept(*row) for row in self.connection.query(query, start, end)]

    def _checked_head(self, tiles: Tiles) -> Head:
        head = self.stored_head()
        if Tree(tiles, head.size).root() != head.root:
            raise Internal("The log's store was changed: `fsck` says where.", reason="LOG_CORRUPT")
        return head

    def _sorted_out(self, rows: Sequence[Row]) -> tuple[list[Row], frozenset[bytes]]:
        """The rows whose ids are new, and the digests of those whose ids stand for other events."""
        stored = self._digests([row.id for row in rows])
        fresh: dict[str, Row] = {}
        reused: set[bytes] = set()
        for row in rows:
            first = fresh.get(row.id)
            digest = first.digest if first else stored.get(row.id)
            if digest is None:
                fresh[row.id] = row
            elif digest != row.digest:
                reused.add(row.digest)
        return list(fresh.values()), frozenset(reused)

    def _digests(self, ids: Sequence[str]) -> dict[str, bytes]:
        """The digests of the events that have one of these ids."""
        found: dict[str, bytes] = {}
        for start in range(0, len(ids), _ASKED_AT_ONCE):
            some = ids[start : start + _ASKED_AT_ONCE]
            places = ", ".join("?" * len(some))
            found.update(self.connection.query(f"SELECT id, digest FROM events WHERE id IN ({places})", *some))  # noqa: S608 - places are question marks
        return found

    def _store_entries(self, size: int, rows: Sequence[Row]) -> None:
        number, kept = divmod(size, WIDTH)
        before = self.bundle(number)[: kept * RECORD_BYTES] if kept else b""
        data = before + b"".join([_LENGTH + row.entry for row in rows])
        width = WIDTH * RECORD_BYTES
        self._put(
            "bundles (number, entries)", "number",
            [(number + at // width, data[at : at + width]) for at in range(0, len(data), width)],
        )
        self.connection.insert("events", [
            (index, row.id, row.tenant, row.time_us, row.digest,
             checksum(row.id, row.tenant, row.time_us, row.digest, row.sealed), row.sealed)
            for index, row in enumerate(rows, size)
        ])  # fmt: skip

    def _put(self, table: str, key: str, rows: Sequence[Sequence[object]]) -> None:
        """Inserts rows, or changes the last column of those whose key is there."""
        columns = table[table.index("(") + 1 : -1].split(", ")
        changed = ", ".join(f"{column} = excluded.{column}" for column in columns if column not in key.split(", "))
        places = ", ".join("?" * len(columns))
        self.connection.execute_many(
            f"INSERT INTO {table} VALUES ({places}) ON CONFLICT ({key}) DO UPDATE SET {changed}", rows,  # noqa: S608 - our names
        )

    def _events(self, where: str, *values: object) -> list[Stored]:
        query = f"SELECT {_COLUMNS} FROM events WHERE body IS NOT NULL AND {where}"  # noqa: S608 - our words
        return [Stored(*row) for row in self.connection.query(query, *values)]

    def _blob(self, query: str, *values: object) -> bytes:
        rows = self.connection.query(query, *values)
        # A flipped bit can make anything of a value in SQLite, also a number.
        return rows[0][0] if rows and isinstance(rows[0][0], bytes) else b""


def checksum(event_id: str, tenant: str, time_us: int, digest: bytes, body: bytes | None) -> int:
    """CRC-32 over what is kept beside an entry: tells fsck, which may lack the tenants' keys, of a flipped bit."""
    columns = b"%s\n%s\n%d\n%s\n" % (event_id.encode(), tenant.encode(), time_us, digest)
    return zlib.crc32(columns if body is None else columns + b"\x01" + body)


class _Edge:
    """Tiles that are read once: an append asks several times for the same few on the right edge, a proof for each."""

    def __init__(self, tiles: Tiles) -> None:
        self._stored = tiles
        self.tiles: dict[tuple[int, int], bytes] = {}

    def tile(self, level: int, number: int) -> bytes:
        place = (level, number)
        if place not in self.tiles:
            self.tiles[place] = self._stored.tile(level, number)
        return self.tiles[place]
