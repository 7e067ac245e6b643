"""The log's store: the database in a thread of its own, its failures as our errors."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Concatenate, ParamSpec, Self, TypeVar

from facetmesh.audit.database import LogDatabase
from facetmesh.audit.merkle import Tree
from facetmesh.kit.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from facetmesh.audit.log import Appended, Head, Row, Stored

_P = ParamSpec("_P")
_T = TypeVar("_T")
_log = logging.getLogger(__name__)


class SqliteStore:
    """The log in an SQLite file. Every method raises Unavailable when SQLite cannot do it now.

    Args:
        database: The file.
        thread: The one thread in which it was opened.
    """

    def __init__(self, database: LogDatabase, thread: ThreadPoolExecutor) -> None:
        self._database = database
        self._thread = thread

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path) -> AsyncIterator[Self]:
        """The store in the file at path, which is made when there is none; it is closed at the end.

        Raises:
            FailedPrecondition: A newer version of facetmesh wrote it.
            Unavailable: SQLite cannot open it.
        """
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="audit-store") as thread:
            store = cls(await _run(thread, lambda: LogDatabase(path)), thread)
            try:
                yield store
            finally:
                await store._do(LogDatabase.close)

    async def head(self) -> Head:
        """The log as it is.

        Raises:
            Internal: The file was changed.
        """
        return await self._do(LogDatabase.head)

    async def append(self, rows: Sequence[Row]) -> Appended:
        """Stores the rows whose ids are new, all or none, durably.

        Raises:
            Internal: The file was changed. Nothing was stored.
        """
        return await self._do(LogDatabase.append, rows)

    async def find(self, event_id: str) -> Stored | None:
        """The event with this id; None when there is none, or its body has expired."""
        return await self._do(LogDatabase.find, event_id)

    async def newest(self, tenant: str | None, *, before: int | None, limit: int) -> list[Stored]:
        """The newest events before an index, the newest first; of one tenant, or of all when None."""
        return await self._do(LogDatabase.newest, tenant, before=before, limit=limit)

    async def inclusion(self, index: int, size: int) -> list[bytes]:
        """RFC 6962's proof that the entry at index is in the log of the first `size` entries."""
        return await self._do(lambda database: Tree(database, size).inclusion(index))

    async def consistency(self, old_size: int, new_size: int) -> list[bytes]:
        """RFC 6962's proof that the log of new_size entries continues that of old_size."""
        return await self._do(lambda database: Tree(database, new_size).consistency(old_size))

    async def _do(
        self, method: Callable[Concatenate[LogDatabase, _P], _T], *args: _P.args, **kwargs: _P.kwargs
    ) -> _T:
        return await _run(self._thread, lambda: method(self._database, *args, **kwargs))


async def _run(thread: ThreadPoolExecutor, function: Callable[[], _T]) -> _T:
    try:
        return await asyncio.get_running_loop().run_in_executor(thread, function)
    except sqlite3.Error as error:
        _log.exception("the log's store failed")
        raise Unavailable(
            "The audit log cannot be used now.", reason="LOG_STORE_UNAVAILABLE", retry_after_s=1
        ) from error
