"""The log in an SQLite file: tables, statements and transactions. One thread at a time may use it.

    tiles       the tree's hashes (`merkle`), 256 in a row
    bundles     the entries, 256 in a row, as C2SP tlog-tiles writes them
    events      beside each entry: its event's id, tenant, time and encrypted body
    head        size and root hash; the tiles must say the same
    migrations  which of the schema's steps were taken

Tiles and bundles are for ever; a body is set to NULL when it expires. A commit is
durable when it returns (synchronous=FULL), and what is in the log is what the
file says: nothing is remembered between two calls.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from facetmesh.audit.log import Appended, Head, Row, Stored
from facetmesh.audit.merkle import WIDTH, Tree
from facetmesh.kit.errors import FailedPrecondition, Internal
from facetmesh.verify.entry import ENTRY_BYTES
from facetmesh.verify.merkle import EMPTY_ROOT, leaf_hash

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_MIGRATIONS = (
    (
        "CREATE TABLE tiles (level INTEGER, number INTEGER, hashes BLOB NOT NULL, PRIMARY KEY (level, number))",
        "CREATE TABLE bundles (number INTEGER PRIMARY KEY, entries BLOB NOT NULL)",
        """CREATE TABLE events (
            position INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, tenant TEXT NOT NULL, time_us INTEGER NOT NULL,
            digest BLOB NOT NULL, body BLOB
        )""",
        "CREATE INDEX events_of_tenant ON events (tenant, position)",
        "CREATE TABLE head (only INTEGER PRIMARY KEY CHECK (only = 1), size INTEGER NOT NULL, root BLOB NOT NULL)",
    ),
)
_LENGTH = ENTRY_BYTES.to_bytes(2, "big")
RECORD_BYTES = len(_LENGTH) + ENTRY_BYTES
"""Bytes of an entry in a bundle: its length in two bytes, then itself."""
_PRIVATE = 0o600


class LogDatabase:
    """The file. Its methods raise sqlite3.Error when SQLite cannot do it.

    Args:
        path: The file, which is made when there is none.

    Raises:
        FailedPrecondition: A newer version of facetmesh wrote it.
    """

    def __init__(self, path: Path) -> None:
        path.touch(mode=_PRIVATE)
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA busy_timeout = 5000")
        # Ids are random, so each commit touches pages all over their index: it should fit
        # into memory (64 MiB), and be written back seldom (each 32 MiB of WAL).
        self._db.execute("PRAGMA cache_size = -65536")
        self._db.execute("PRAGMA wal_autocheckpoint = 8192")
        self._migrate()

    def close(self) -> None:
        """Closes the file."""
        self._db.close()

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Shows the log as it is at the first read, whatever is appended meanwhile."""
        self._db.execute("BEGIN")
        try:
            yield
        finally:
            self._db.execute("ROLLBACK")

    def stored_head(self) -> Head:
        """The head as the last commit left it."""
        row = self._db.execute("SELECT size, root FROM head").fetchone()
        return Head(*row) if row else Head(0, EMPTY_ROOT)

    def head(self) -> Head:
        """The head, which is what the tiles say too.

        Raises:
            Internal: It is not: the file was changed. No checkpoint may be signed for it.
        """
        head = self.stored_head()
        if Tree(self, head.size).root() != head.root:
            raise Internal("The log's store was changed: `fsck` says where.", reason="LOG_CORRUPT")
        return head

    def append(self, rows: Sequence[Row]) -> Appended:
        """Stores the rows whose ids are new, all or none, durably.

        Raises:
            Internal: The tiles on which the new root would rest were changed. Nothing was stored.
        """
        with self._writing():
            head = self.head()
            fresh, reused = self._sorted_out(rows)
            if fresh:
                tiles = Tree(self, head.size).extended([leaf_hash(row.entry) for row in fresh])
                self._db.executemany(
                    "INSERT OR REPLACE INTO tiles VALUES (?, ?, ?)", [(*place, tile) for place, tile in tiles.items()],
                )
                self._store_entries(head.size, fresh)
                size = head.size + len(fresh)
                head = Head(size, Tree(self, size).root())
                self._db.execute("INSERT OR REPLACE INTO head VALUES (1, ?, ?)", (head.size, head.root))
        return Appended(head, reused)

    def find(self, event_id: str) -> Stored | None:
        """The event with this id; None when there is none, or its body has expired."""
        found = self._events("id = ?", (event_id,), "")
        return found[0] if found else None

    def newest(self, tenant: str | None, *, before: int | None, limit: int) -> list[Stored]:
        """The newest events before an index, the newest first; of one tenant, or of all when None."""
        bound = self.stored_head().size if before is None else before
        if tenant is None:
            return self._events("position < ?", (bound, limit), "ORDER BY position DESC LIMIT ?")
        return self._events("tenant = ? AND position < ?", (tenant, bound, limit), "ORDER BY position DESC LIMIT ?")

    def between(self, start: int, end: int) -> list[Stored]:
        """The events of the entries from start to before end, in order, without those that expired."""
        return self._events("position >= ? AND position < ?", (start, end), "ORDER BY position")

    def positions(self, start: int, end: int) -> list[int]:
        """The indices, from start to before end, that have an event, expired or not."""
        query = "SELECT position FROM events WHERE position >= ? AND position < ? ORDER BY position"
        return [position for (position,) in self._db.execute(query, (start, end))]

    def integrity(self) -> list[str]:
        """What SQLite finds wrong with the file itself."""
        return [text for (text,) in self._db.execute("PRAGMA integrity_check") if text != "ok"]

    def tile(self, level: int, number: int) -> bytes:
        """The tile's hashes, 32 bytes each; empty when there is no such tile."""
        return self._blob("SELECT hashes FROM tiles WHERE level = ? AND number = ?", level, number)

    def tiles(self) -> Iterator[tuple[int, int]]:
        """The level and number of every tile."""
        return iter(self._db.execute("SELECT level, number FROM tiles ORDER BY level, number"))

    def bundle(self, number: int) -> bytes:
        """Up to 256 records of RECORD_BYTES each; empty when there is no such bundle."""
        return self._blob("SELECT entries FROM bundles WHERE number = ?", number)

    def _migrate(self) -> None:
        with self._writing():
            self._db.execute("CREATE TABLE IF NOT EXISTS migrations (version INTEGER PRIMARY KEY, time_s INTEGER)")
            (done,) = self._db.execute("SELECT count(*) FROM migrations").fetchone()
            if done > len(_MIGRATIONS):
                raise FailedPrecondition("A newer version of facetmesh wrote this log.", reason="LOG_TOO_NEW")
            for version, statements in enumerate(_MIGRATIONS[done:], start=done + 1):
                for statement in statements:
                    self._db.execute(statement)
                self._db.execute("INSERT INTO migrations VALUES (?, ?)", (version, int(time.time())))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """A transaction that nobody else's write can come between."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            # A full disk may have ended the transaction already.
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def _sorted_out(self, rows: Sequence[Row]) -> tuple[list[Row], frozenset[bytes]]:
        """The rows whose ids are new, and the digests of those whose ids stand for other events."""
        fresh: dict[str, Row] = {}
        reused: set[bytes] = set()
        for row in rows:
            first = fresh.get(row.id)
            digest = first.digest if first else self._blob("SELECT digest FROM events WHERE id = ?", row.id)
            if not digest:
                fresh[row.id] = row
            elif digest != row.digest:
                reused.add(row.digest)
        return list(fresh.values()), frozenset(reused)

    def _store_entries(self, size: int, rows: Sequence[Row]) -> None:
        number, kept = divmod(size, WIDTH)
        data = self.bundle(number)[: kept * RECORD_BYTES] + b"".join([_LENGTH + row.entry for row in rows])
        width = WIDTH * RECORD_BYTES
        self._db.executemany(
            "INSERT OR REPLACE INTO bundles VALUES (?, ?)",
            [(number + at // width, data[at : at + width]) for at in range(0, len(data), width)],
        )
        self._db.executemany(
            "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)",
            [(index, row.id, row.tenant, row.time_us, row.digest, row.sealed) for index, row in enumerate(rows, size)],
        )

    def _events(self, where: str, values: tuple[object, ...], order: str) -> list[Stored]:
        columns = "position, id, tenant, time_us, digest, body"
        query = f"SELECT {columns} FROM events WHERE {where} AND body IS NOT NULL {order}"  # noqa: S608 - our words
        return [Stored(*row) for row in self._db.execute(query, values)]

    def _blob(self, query: str, *values: object) -> bytes:
        row = self._db.execute(query, values).fetchone()
        return bytes(row[0]) if row else b""
