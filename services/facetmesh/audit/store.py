"""The log's store: one connection that writes and one that reads, each in a thread of its own."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Self, TypeVar

from facetmesh.audit.bookkeeping import Bookkeeping
from facetmesh.audit.database import LogDatabase

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence

    from facetmesh.audit.connection import Connection
    from facetmesh.audit.records import Appended, Head, Row, Stored
    from facetmesh.audit.retention import Retention

_T = TypeVar("_T")


class _Lane:
    """A connection, and the thread that uses it."""

    def __init__(self, connect: Callable[[], Connection], name: str) -> None:
        self._connect = connect
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"audit-{name}")

    async def open(self) -> None:
        self.database = await self.do(lambda: LogDatabase(self._connect()))
        self.books = Bookkeeping(self.database.connection)

    async def do(self, function: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)

    async def close(self) -> None:
        try:
            if hasattr(self, "database"):
                await self.do(self.database.connection.close)
        finally:
            self._thread.shutdown(wait=False)


class Store:
    """The log in a database. Every method raises Unavailable when the database cannot do it now.

    Args:
        writer: Appends and changes.
        reader: Answers questions, also while the writer is busy.
    """

    def __init__(self, writer: _Lane, reader: _Lane) -> None:
        self._writer = writer
        self._reader = reader

    @classmethod
    @asynccontextmanager
    async def open(cls, connect: Callable[[], Connection]) -> AsyncIterator[Self]:
        """The store behind a connection, with its tables made or brought up to date; closed at the end.

        Raises:
            FailedPrecondition: A newer version of facetmesh wrote it.
            Unavailable: The database cannot be opened.
        """
        writer, reader = _Lane(connect, "writer"), _Lane(connect, "reader")
        try:
            await writer.open()
            await reader.open()
            yield cls(writer, reader)
        finally:
            await writer.close()
            await reader.close()

    async def head(self) -> Head:
        """The log as it is.

        Raises:
            Internal: The store was changed.
        """
        return await self._reader.do(self._reader.database.head)

    async def size(self) -> int:
        """How many entries the log has, without a look at its tiles."""
        return (await self._reader.do(self._reader.database.stored_head)).size

    async def append(self, rows: Sequence[Row]) -> Appended:
        """Stores the rows whose ids are new, all or none, durably.

        Raises:
            Internal: The store was changed. Nothing was stored.
        """
        return await self._writer.do(lambda: self._writer.database.append(rows))

    async def find(self, event_id: str) -> Stored | None:
        """The event with this id; None when there is none, or its body has expired."""
        return await self._reader.do(lambda: self._reader.database.find(event_id))

    async def listed(
        self, tenant: str | None, *, since_us: int, before: tuple[int, int], limit: int
    ) -> list[Stored]:
        """The newest events between a time and a time with an index, the newest first."""
        return await self._reader.do(
            lambda: self._reader.database.listed(tenant, since_us=since_us, before=before, limit=limit)
        )

    async def after(self, tenant: str | None, *, start: int, limit: int) -> list[Stored]:
        """Events in the order of the log, from an index on; of one tenant, or of all when None."""
        return await self._reader.do(lambda: self._reader.database.after(tenant, start=start, limit=limit))

    async def tile(self, level: int, number: int) -> bytes:
        """A tile's hashes, 32 bytes each; empty when there is no such tile."""
        return await self._reader.do(lambda: self._reader.database.tile(level, number))

    async def bundle(self, number: int) -> bytes:
        """A bundle's entries, each with its length; empty when there is no such bundle."""
        return await self._reader.do(lambda: self._reader.database.bundle(number))

    async def inclusion(self, index: int, size: int) -> list[bytes]:
        """RFC 6962's proof that the entry at index is in the log of the first `size` entries."""
        return await self._reader.do(lambda: self._reader.database.tree(size).inclusion(index))

    async def consistency(self, old_size: int, new_size: int) -> list[bytes]:
        """RFC 6962's proof that the log of new_size entries continues that of old_size."""
        return await self._reader.do(lambda: self._reader.database.tree(new_size).consistency(old_size))

    async def expire(self, tenant: str, before_us: int, limit: int) -> int:
        """Removes the bodies of a tenant's oldest events from before a time; returns how many."""
        return await self._writer.do(lambda: self._writer.database.expire(tenant, before_us, limit))

    async def retention(self, tenant: str) -> Retention | None:
        """What was set for a tenant."""
        return await self._reader.do(lambda: self._reader.books.retention(tenant))

    async def retentions(self) -> list[Retention]:
        """What was set, for all tenants."""
        return await self._reader.do(self._reader.books.retentions)

    async def set_retention(self, new: Retention, *, changed_us: int) -> bool:
        """Sets a tenant's retention unless it was changed since; returns whether it was set."""
        return await self._writer.do(lambda: self._writer.books.set_retention(new, changed_us=changed_us))

    async def take_cursor(self, name: str, holder: str, *, now_us: int, until_us: int) -> int | None:
        """Takes or keeps a cursor until a time; returns its position, or None while another holder has it."""
        return await self._writer.do(
            lambda: self._writer.books.take_cursor(name, holder, now_us=now_us, until_us=until_us)
        )

    async def move_cursor(self, name: str, holder: str, position: int) -> bool:
        """Moves a cursor on; returns whether it was the holder's still."""
        return await self._writer.do(lambda: self._writer.books.move_cursor(name, holder, position))

    async def sightings(self) -> Iterable[tuple[str, str, str]]:
        """All that the alert rules have seen: rule, subject and value."""
        return await self._reader.do(self._reader.books.sightings)

    async def saw(self, seen: Sequence[tuple[str, str, str]], forgotten: Sequence[tuple[str, str]] = ()) -> None:
        """Keeps what the alert rules have seen, and nothing of what they have forgotten."""
        await self._writer.do(lambda: self._writer.books.saw(seen, forgotten))
