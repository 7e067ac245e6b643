"""The log's database in an SQLite file."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from facetmesh.audit.connection import store_failed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_PRIVATE = 0o600
# A commit is durable when it returns. Ids are random, so each touches pages all over
# their index: it should fit into memory (64 MiB), and be written back seldom (each 32 MiB of WAL).
_SETTINGS = (
    "journal_mode = WAL", "synchronous = FULL", "busy_timeout = 5000", "cache_size = -65536",
    "wal_autocheckpoint = 8192",
)  # fmt: skip


class SqliteConnection:
    """A connection with a file, which is made when there is none. Any thread may use it, one at a time.

    Args:
        path: The file.

    Raises:
        Unavailable: SQLite cannot open it.
    """

    dialect = "sqlite"
    """Whose SQL it speaks."""

    def __init__(self, path: Path) -> None:
        with _our_errors():
            path.touch(mode=_PRIVATE)
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            for setting in _SETTINGS:
                self._db.execute(f"PRAGMA {setting}")

    def query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """The rows that a statement gives."""
        with _our_errors():
            return self._db.execute(sql, values).fetchall()

    def insert(self, table: str, rows: Sequence[Sequence[object]]) -> None:
        """Inserts rows, all columns of each in the table's order."""
        if rows:
            places = ", ".join("?" * len(rows[0]))
            self.execute_many(f"INSERT INTO {table} VALUES ({places})", rows)  # noqa: S608 - our own names

    def execute_many(self, sql: str, rows: Sequence[Sequence[object]]) -> None:
        """Runs a statement once with each row of values."""
        with _our_errors():
            self._db.executemany(sql, rows)

    def script(self, sql: str) -> None:
        """Runs statements without values."""
        # Not executescript, which would commit first. None of our statements has a semicolon within.
        with _our_errors():
            for statement in sql.split(";"):
                self._db.execute(statement)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """A transaction that no other writer's can come between; durable at its end."""
        with _our_errors():
            self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            with _our_errors():
                self._db.execute("COMMIT")
        except BaseException:
            # A full disk may have ended the transaction already.
            if self._db.in_transaction:
                with _our_errors():
                    self._db.execute("ROLLBACK")
            raise

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Shows everything as it is at the first read, whatever is written meanwhile."""
        with _our_errors():
            self._db.execute("BEGIN")
        try:
            yield
        finally:
            with _our_errors():
                self._db.execute("ROLLBACK")

    def integrity(self) -> list[str]:
        """What SQLite finds wrong with the file."""
        return [text for (text,) in self.query("PRAGMA integrity_check") if text != "ok"]

    def close(self) -> None:
        """Closes the file."""
        with _our_errors():
            self._db.close()


@contextmanager
def _our_errors() -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, UnicodeDecodeError) as error:  # the latter for a text, or its own words, of a broken file
        raise store_failed(error) from error
