"""What the log's database asks of a driver: SQL that SQLite and PostgreSQL both understand, with `?` for values."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Protocol

from facetmesh.kit.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

_log = logging.getLogger(__name__)


class Connection(Protocol):
    """A connection that one thread at a time may use. All its methods raise Unavailable when the store fails."""

    dialect: str
    """Whose SQL it speaks: `sqlite` or `postgresql`."""

    def query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """The rows that a statement gives."""
        ...

    def insert(self, table: str, rows: Sequence[Sequence[object]]) -> None:
        """Inserts rows, all columns of each in the table's order."""
        ...

    def execute_many(self, sql: str, rows: Sequence[Sequence[object]]) -> None:
        """Runs a statement once with each row of values."""
        ...

    def script(self, sql: str) -> None:
        """Runs statements without values."""
        ...

    def writing(self) -> AbstractContextManager[None]:
        """A transaction that no other writer's can come between, on this machine or another; durable at its end."""
        ...

    def snapshot(self) -> AbstractContextManager[None]:
        """Shows everything as it is at the first read, whatever is written meanwhile."""
        ...

    def integrity(self) -> list[str]:
        """What the store finds wrong with its own files."""
        ...

    def close(self) -> None:
        """Ends the connection."""
        ...


def store_failed(error: Exception) -> Unavailable:
    """What is raised when a driver says that the store failed; the log has the driver's words."""
    _log.error("the log's store failed", exc_info=error)
    return Unavailable("The audit log cannot be used now.", reason="LOG_STORE_UNAVAILABLE", retry_after_s=1)
