"""What the service keeps beside the log: retention, cursors, and what the alert rules have seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from facetmesh.audit.retention import Retention

if TYPE_CHECKING:
    from collections.abc import Iterable

    from facetmesh.audit.connection import Connection


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
        return [_retention(*row) for row in self._connection.query("SELECT * FROM retention ORDER BY tenant")]

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
                "retention", [(new.tenant, new.days, int(new.hold), new.reason, new.changed_us)]
            )
        return True

    def take_cursor(self, name: str, holder: str, *, now_us: int, until_us: int) -> int | None:
        """Takes or keeps a cursor until a time; returns its position, or None while another holder has it."""
        with self._connection.writing():
            rows = self._connection.query("SELECT position, holder, until_us FROM cursors WHERE name = ?", name)
            if not rows:
                self._connection.insert("cursors", [(name, 0, holder, until_us)])
                return 0
            position, other, others_until_us = rows[0]
            if other != holder and others_until_us > now_us:
                return None
            self._connection.query("UPDATE cursors SET holder = ?, until_us = ? WHERE name = ?", holder, until_us, name)
        return int(position)

    def move_cursor(self, name: str, holder: str, position: int) -> bool:
        """Moves a cursor on; returns whether it was the holder's still."""
        with self._connection.writing():
            mine = self._connection.query("SELECT 1 FROM cursors WHERE name = ? AND holder = ?", name, holder)
            if mine:
                self._connection.query("UPDATE cursors SET position = ? WHERE name = ?", position, name)
        return bool(mine)

    def sightings(self) -> Iterable[tuple[str, str, str]]:
        """All that was seen: rule, subject and value."""
        query = "SELECT rule, subject, value FROM sightings"
        return [(rule, subject, value) for rule, subject, value in self._connection.query(query)]

    def saw(self, seen: Iterable[tuple[str, str, str]]) -> None:
        """Keeps what was seen: rule, subject and value."""
        with self._connection.writing():
            self._connection.execute_many("INSERT INTO sightings VALUES (?, ?, ?) ON CONFLICT DO NOTHING", list(seen))


def _retention(tenant: str, days: int, hold: int, reason: str, changed_us: int) -> Retention:
    return Retention(tenant, days, bool(hold), reason, changed_us)
