"""The operations of all tenants, changed one at a time, and word of their changes."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING, Protocol

from facetmesh.kit.errors import Aborted, NotFound

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from facetmesh.fusion.line import Ticket
    from facetmesh.fusion.lookups import Imprint
    from facetmesh.fusion.operations import Operation, Ref

REREAD_S = 1.0
"""How often a waiting caller looks itself: another replica's changes are not told here."""
_CHANGE_ATTEMPTS = 10


class Store(Protocol):
    """Where operations are kept."""

    async def get(self, ref: Ref) -> Operation | None:
        """The operation; None when there is none."""
        ...

    async def create(self, operation: Operation) -> bool:
        """Stores a new operation; False when there is one with its id."""
        ...

    async def save(self, operation: Operation) -> None:
        """Stores an operation in place of the version that was read; raises Aborted when that has changed."""
        ...

    async def ids(self, tenant_id: str) -> list[str]:
        """The ids of a tenant's operations, sorted; some may have no record."""
        ...

    async def imprint(self, tenant_id: str, imprint: Imprint) -> None:
        """Keeps what a result is known again by."""
        ...

    async def note_result(self, ref: Ref, day: int) -> None:
        """Notes that a result is about to be stored, on a day counted since the epoch."""
        ...

    async def reserve(self, tenant_id: str, request_id: str, operation_id: str) -> str:
        """The operation id of a request: the one given, unless the request came before."""
        ...

    async def announce(self, ticket: Ticket) -> None:
        """Notes that an operation may need work: before it is created."""
        ...

    async def forget(self, ref: Ref) -> None:
        """Notes that an operation needs no more work."""
        ...

    async def announced(self) -> list[Ticket]:
        """What may need work; some may have no record, or be done."""
        ...


class Registry:
    """Reads and changes operations.

    Args:
        store: Where they are kept.
        clock: Seconds since the epoch.
    """

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self.store = store
        """Where they are kept."""
        self.clock = clock
        """Seconds since the epoch."""
        self._listening: defaultdict[Ref, set[asyncio.Future[None]]] = defaultdict(set)

    async def get(self, ref: Ref) -> Operation:
        """The operation.

        Raises:
            NotFound: There is none.
        """
        operation = await self.store.get(ref)
        if operation is None:
            raise NotFound("There is no such operation.")
        return operation

    async def change(self, ref: Ref, make: Callable[[Operation], Operation]) -> Operation:
        """Changes an operation; what make does may be done again on a newer version.

        Raises:
            NotFound: There is none.
            Aborted: What make raises, or too many changes at once.
        """
        for _ in range(_CHANGE_ATTEMPTS):
            operation = await self.get(ref)
            changed = make(operation)
            if changed == operation:
                return operation
            try:
                await self.store.save(changed)
            except Aborted:
                continue  # somebody else changed it between our read and our write
            if changed.stage != operation.stage:
                self._tell(ref)
            return changed
        raise Aborted("Too many changes at once; try again.", retry_after_s=0.1)

    async def wait(self, ref: Ref, timeout_s: float) -> Operation:
        """The operation, once it is done or the timeout has passed."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while True:
            news = self._listen(ref)  # before we look: no change falls between the two
            try:
                operation = await self.get(ref)
                left = deadline - loop.time()
                if operation.done or left <= 0:
                    return operation
                await asyncio.wait([news], timeout=min(REREAD_S, left))
            finally:
                self._unlisten(ref, news)

    async def follow(self, ref: Ref) -> AsyncIterator[Operation]:
        """The operation now, and again whenever it may have changed, until it is done."""
        while True:
            news = self._listen(ref)  # before we look: no change falls between the two
            try:
                operation = await self.get(ref)
                yield operation
                if operation.done:
                    return
                await asyncio.wait([news], timeout=REREAD_S)
            finally:
                self._unlisten(ref, news)

    async def news(self, ref: Ref, timeout_s: float) -> None:
        """Returns when the operation's stage is changed in this process, or the timeout has passed."""
        news = self._listen(ref)
        try:
            await asyncio.wait([news], timeout=timeout_s)
        finally:
            self._unlisten(ref, news)

    def _tell(self, ref: Ref) -> None:
        for news in self._listening.pop(ref, ()):
            if not news.done():
                news.set_result(None)

    def _listen(self, ref: Ref) -> asyncio.Future[None]:
        news: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._listening[ref].add(news)
        return news

    def _unlisten(self, ref: Ref, news: asyncio.Future[None]) -> None:
        if ref in self._listening:
            self._listening[ref].discard(news)
            if not self._listening[ref]:
                del self._listening[ref]
