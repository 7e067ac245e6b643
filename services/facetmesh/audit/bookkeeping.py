"""What the service keeps beside the log: retention, cursors, and what the alert rules have seen."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from facetmesh.audit.retention import Retention

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from facetmesh.audit.connection import Connection

_TABLES = {
    "retention": ("tenant", "days", "hold", "reason", "changed_us"),
    "cursors": ("name", "position", "holder", "until_us"),
    "sightings": ("rule", "subject", "value"),
}
"""The columns of each, before its checksum."""


class Bookkeeping:
    """Tables that may change, unlike the log. Every method raises Unavailable when the store fails.

    Args:
        connection: The store, with the log's tables.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def retention(self, tenant: str) -> Retention | None:
        """What was set for a tenant."""
        rows = self._connection.query("SELECT days, hold, reason, changed_us FROM retention WHERE tenant = ?", tenant)
        return _retention(tenant, *rows[0]) if rows else None

    def retentions(self) -> list[Retention]:
        """What was set, for all tenants."""
        return [
            _retention(*row)
            for row in self._connection.query(
                "SELECT tenant, days, hold, reason, changed_us FROM retention ORDER BY tenant"
            )
        ]

    def set_retention(self, new: Retention, *, changed_us: int) -> bool:
        """Sets a tenant's retention unless it was changed since; returns whether it was set.

        Args:
            new: What is to be.
            changed_us: When what it replaces was set; 0 for what was never set.
        """
        with self._connection.writing():
            old = self.retention(new.tenant)
            if (old.changed_us if old else 0) != changed_us:
                return False
            self._connection.query("DELETE FROM retention WHERE tenant = ?", new.tenant)
            self._connection.insert(
                "retention", [_checked(new.tenant, new.days, int(new.hold), new.reason, new.changed_us)]
            )
        return True

    def take_cursor(self, name: str, holder: str, *, now_us: int, until_us: int) -> int | None:
        """Takes or keeps a cursor until a time; returns its position, or None while another holder has it."""
        with self._connection.writing():
            rows = self._connection.query("SELECT position, holder, until_us FROM cursors WHERE name = ?", name)
            if not rows:
                self._connection.insert("cursors", [_checked(name, 0, holder, until_us)])
                return 0
            position, other, others_until_us = rows[0]
            if other != holder and others_until_us > now_us:
                return None
            self._set_cursor(name, position, holder, until_us)
        return int(position)

    def move_cursor(self, name: str, holder: str, position: int) -> bool:
        """Moves a cursor on; returns whether it was the holder's still."""
        with self._connection.writing():
            mine = self._connection.query("SELECT until_us FROM cursors WHERE name = ? AND holder = ?", name, holder)
            for (until_us,) in mine:
                self._set_cursor(name, position, holder, until_us)
        return bool(mine)

    def _set_cursor(self, name: str, position: int, holder: str, until_us: int) -> None:
        _, *changed = _checked(name, position, holder, until_us)
        self._connection.query(
            "UPDATE cursors SET position = ?, holder = ?, until_us = ?, checksum = ? WHERE name = ?", *changed, name
        )

    def sightings(self) -> Iterable[tuple[str, str, str]]:
        """All that was seen: rule, subject and value."""
        query = "SELECT rule, subject, value FROM sightings"
        return [(rule, subject, value) for rule, subject, value in self._connection.query(query)]

    def saw(self, seen: Sequence[tuple[str, str, str]], forgotten: Sequence[tuple[str, str]] = ()) -> None:
        """Keeps what was seen: rule, subject and value; first forgets what is forgotten: rule and subject."""
        with self._connection.writing():
            self._connection.execute_many("DELETE FROM sightings WHERE rule = ? AND subject = ?", forgotten)
            self._connection.execute_many(
                "INSERT INTO sightings VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING", [_checked(*one) for one in seen]
            )


def _retention(tenant: str, days: int, hold: int, reason: str, changed_us: int) -> Retention:
    return Retention(tenant, days, bool(hold), reason, changed_us)


def changed_rows(connection: Connection) -> Iterator[str]:
    """The rows that are not what was written, each by its table and the first of its columns."""
    for table, columns in _TABLES.items():
        for row in connection.query(f"SELECT {', '.join(columns)}, checksum FROM {table}"):  # noqa: S608 - our names
            if _checked(*row[:-1]) != row:
                yield f"{table} {row[0]}"


def fill_checksums(connection: Connection) -> None:
    """Gives all rows their checksums, as a part of a transaction: those of older versions have none."""
    for table, columns in _TABLES.items():
        rows = connection.query(f"SELECT {', '.join(columns)} FROM {table}")  # noqa: S608 - our names
        connection.query(f"DELETE FROM {table}")  # noqa: S608 - the same
        connection.insert(table, [_checked(*row) for row in rows])


def _checked(*values: object) -> tuple[object, ...]:
    """A row, with its CRC-32 as the last column."""
    return (*values, zlib.crc32("\n".join(map(str, values)).encode()))
