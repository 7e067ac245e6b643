"""The log's store: the database in a thread of its own, its failures as our errors."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from facetmesh.audit.database import LogDatabase
from facetmesh.audit.merkle import Tree
from facetmesh.kit.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from facetmesh.audit.log import Appended, Head, Row, Stored

_P = ParamSpec("_P")
_T = TypeVar("_T")
_log = logging.getLogger(__name__)


class SqliteStore:
    """The log in an SQLite file. Every method raises Unavailable when SQLite cannot do it now.

    Args:
        path: The file; `open` opens it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="audit-store")
        self._database: LogDatabase

    async def open(self) -> None:
        """Opens the file, which is made when there is none.

        Raises:
            FailedPrecondition: A newer version of facetmesh wrote it.
        """
        self._database = await self._run(LogDatabase, self._path)

    async def close(self) -> None:
        """Closes the file."""
        await self._do(LogDatabase.close)
        self._thread.shutdown()

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
        return await self._run(lambda: method(self._database, *args, **kwargs))

    async def _run(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        def run() -> _T:
            return function(*args, **kwargs)

        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, run)
        except sqlite3.Error as error:
            _log.exception("the log's store failed")
            raise Unavailable(
                "The audit log cannot be used now.", reason="LOG_STORE_UNAVAILABLE", retry_after_s=1
            ) from error
