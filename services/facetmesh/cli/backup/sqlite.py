"""A SQLite file that is being written to, as it was at one moment."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Self

from facetmesh.kit.errors import FailedPrecondition

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType

_PAGES_A_STEP = 4096


class Snapshot:
    """A SQLite file as it is when the context is entered, whatever is written to it afterwards.

    A read transaction in WAL mode: writers are not held up; the WAL grows while it lasts.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db: sqlite3.Connection

    def __enter__(self) -> Self:
        """Fixes the moment.

        Raises:
            FailedPrecondition: FILE_UNREADABLE; it is no SQLite file, or damaged.
        """
        try:
            self._db = sqlite3.connect(f"{self._path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None)
            self._db.execute("BEGIN")
            self._db.execute("SELECT count(*) FROM sqlite_schema").fetchone()  # the first read is the moment
        except sqlite3.Error as error:
            raise _unreadable(self._path, error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None,
    ) -> None:
        """Lets go of it."""
        self._db.close()

    def copy(self, target: Path, progress: Callable[[int, int], None]) -> None:
        """Writes the file as it was to target, with SQLite's online backup.

        Args:
            target: A file that is not there yet.
            progress: Is told how many bytes of how many are done.

        Raises:
            FailedPrecondition: FILE_UNREADABLE.
        """
        (page,) = self._db.execute("PRAGMA page_size").fetchone()
        try:
            with closing(sqlite3.connect(target)) as copy:
                self._db.backup(
                    copy, pages=_PAGES_A_STEP, sleep=0,
                    progress=lambda _, left, total: progress((total - left) * page, total * page),
                )
                copy.execute("PRAGMA journal_mode = DELETE")  # one file, whole in itself
        except sqlite3.Error as error:
            raise _unreadable(self._path, error) from error


def renew(copy: Path, live: Path, *, table: str, like: str) -> None:
    """Makes the rows of a copy's table with keys like that what they are in the live file now.

    Args:
        copy: The copy.
        live: The file it was made of.
        table: A table whose first column is its key, named `key`.
        like: SQL's LIKE pattern.
    """
    with closing(sqlite3.connect(live)) as source, closing(sqlite3.connect(copy)) as target:
        rows = source.execute(f"SELECT * FROM {table} WHERE key LIKE ?", (like,)).fetchall()  # noqa: S608 - our words
        for row in rows:
            marks = ", ".join("?" * len(row))
            target.execute(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", row)  # noqa: S608 - our words
        target.commit()


def _unreadable(path: Path, error: sqlite3.Error) -> FailedPrecondition:
    return FailedPrecondition(
        f"{path} cannot be copied: {error}.", reason="FILE_UNREADABLE", metadata={"file": str(path)},
    )
