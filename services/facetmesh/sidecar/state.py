"""Keys and values with etags, first-write and expiry, as daprd's `state.sqlite` has them."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from facetmesh.kit.store import Store

SCHEMA = """
CREATE TABLE IF NOT EXISTS state (
    key TEXT PRIMARY KEY,
    value BLOB NOT NULL,
    etag TEXT NOT NULL,
    expires REAL -- seconds since the epoch; NULL never
);
CREATE INDEX IF NOT EXISTS state_expires ON state (expires) WHERE expires IS NOT NULL;
"""


class EtagMismatch(Exception):
    """Somebody else wrote the key meanwhile."""

    def __init__(self) -> None:
        super().__init__("possible etag mismatch. error from state store")


@dataclass(frozen=True, slots=True)
class Record:
    """What is stored under a key."""

    value: bytes
    etag: str
    expires: float | None
    """When it ends, in seconds since the epoch; None never."""


@dataclass(frozen=True, slots=True)
class Set:
    """Writes a value."""

    key: str
    value: bytes
    etag: str = ""
    """Write only over this version; "" over any."""
    first_write: bool = False
    """Without an etag: write only if there is nothing."""
    ttl_s: int | None = None
    """After how many seconds it ends; None or not above 0: never."""


@dataclass(frozen=True, slots=True)
class Delete:
    """Removes a value; nothing happens when there is none and no etag was given."""

    key: str
    etag: str = ""
    """Remove only this version; "" any."""


Change = Set | Delete


class StateStore:
    """The values of one state component.

    Args:
        store: Where they lie; its schema includes SCHEMA.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    async def get(self, keys: Sequence[str]) -> dict[str, Record]:
        """The records of those keys that have one.

        Raises:
            StoreError: The file could not be read.
        """
        return await self._store.run(lambda connection: _read(connection, keys))

    async def apply(self, changes: Sequence[Change]) -> list[EtagMismatch | None]:
        """Makes each change on its own; returns for each what kept it from being made.

        Raises:
            StoreError: The file could not be written; none was made.
        """

        def work(connection: sqlite3.Connection) -> list[EtagMismatch | None]:
            outcomes: list[EtagMismatch | None] = []
            for change in changes:
                try:
                    _apply(connection, change)
                except EtagMismatch as mismatch:
                    outcomes.append(mismatch)
                else:
                    outcomes.append(None)
            return outcomes

        return await self._store.run(work)

    async def transact(self, changes: Sequence[Change]) -> None:
        """Makes all changes or none.

        Raises:
            EtagMismatch: One of them; none was made.
            StoreError: The file could not be written; none was made.
        """

        def work(connection: sqlite3.Connection) -> None:
            for change in changes:
                _apply(connection, change)

        await self._store.run(work)


def remove_expired(connection: sqlite3.Connection) -> None:
    """Makes room: deletes what nobody can read any more."""
    connection.execute("DELETE FROM state WHERE expires <= ?", (time.time(),))


def _read(connection: sqlite3.Connection, keys: Sequence[str]) -> dict[str, Record]:
    found = {}
    now = time.time()
    for key in keys:
        row = connection.execute(
            "SELECT value, etag, expires FROM state WHERE key = ? AND (expires IS NULL OR expires > ?)", (key, now)
        ).fetchone()
        if row is not None:
            found[key] = Record(*row)
    return found


def _apply(connection: sqlite3.Connection, change: Change) -> None:
    if isinstance(change, Delete):
        gone = connection.execute(
            "DELETE FROM state WHERE key = :key AND (:etag = '' OR etag = :etag)",
            {"key": change.key, "etag": change.etag},
        ).rowcount
        if change.etag and not gone:
            raise EtagMismatch
        return
    now = time.time()
    values = {
        "key": change.key,
        "value": change.value,
        "new_etag": os.urandom(8).hex(),
        "expires": now + change.ttl_s if change.ttl_s and change.ttl_s > 0 else None,
        "etag": change.etag,
        "first_write": change.first_write,
        "now": now,
    }
    if change.etag:
        written = connection.execute(
            "UPDATE state SET value = :value, etag = :new_etag, expires = :expires"
            " WHERE key = :key AND etag = :etag AND (expires IS NULL OR expires > :now)",
            values,
        ).rowcount
    else:
        written = connection.execute(
            "INSERT INTO state (key, value, etag, expires) VALUES (:key, :value, :new_etag, :expires)"
            " ON CONFLICT (key) DO UPDATE SET value = :value, etag = :new_etag, expires = :expires"
            # What has expired is as good as gone, also for a first write.
            " WHERE NOT :first_write OR (state.expires IS NOT NULL AND state.expires <= :now)",
            values,
        ).rowcount
    if not written:
        raise EtagMismatch
