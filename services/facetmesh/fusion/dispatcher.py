"""The dispatcher: finds jobs that want work, and hands them to workers in the order of the line."""

from __future__ import annotations

import asyncio
import functools
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from facetmesh.fusion.line import Pace
from facetmesh.kit.errors import FacetmeshError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from facetmesh.fusion.line import Line, Ticket
    from facetmesh.fusion.operations import Ref
    from facetmesh.fusion.registry import Registry
    from facetmesh.fusion.worker import Worker

SCAN_S = 2.0
"""How often the list of work is read, whatever events say."""
ABANDONED_S = 600.0
"""A request that has not become an operation after so long never will."""
_REST_S = 1.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Standing:
    """How long a job has to wait, as far as this replica knows."""

    position: int
    """1 is the next."""
    wait_s: float | None
    """In how many seconds it is likely begun; None while nothing is known of the pace."""


class Dispatcher:
    """Runs a worker's jobs, several at a time.

    Args:
        registry: The operations.
        worker: Does the jobs.
        line: Whose turn it is.
        concurrency: How many at a time; 0 leaves them to other replicas.
        see: Is told of all work that is left, whenever the list of it was read.
    """

    def __init__(
        self,
        registry: Registry,
        worker: Worker,
        line: Line,
        concurrency: int,
        see: Callable[[Collection[Ref]], None] = lambda _: None,
    ) -> None:
        self._store = registry.store
        self._worker = worker
        self._line = line
        self._concurrency = concurrency
        self._see = see
        self._clock = registry.clock
        self._known: set[Ticket] = set()
        self._ended_since = 0
        self._rests: dict[Ticket, float] = {}
        self._running: dict[Ticket, asyncio.Task[None]] = {}
        self._positions: dict[Ticket, int] | None = None
        self._pace = Pace()
        self._news = asyncio.Event()

    def wake(self, ticket: Ticket) -> None:
        """Looks at an operation now."""
        self._known.add(ticket)
        self._positions = None
        self._rests.pop(ticket, None)
        self._news.set()

    def standing(self, ticket: Ticket) -> Standing | None:
        """How long a job that waits has to; None where this replica has not heard of it."""
        if self._positions is None:
            waiting = self._line.order(self._known - self._running.keys())
            self._positions = {one: place for place, one in enumerate(waiting, 1)}
        position = self._positions.get(ticket)
        return None if position is None else Standing(position, self._pace.takes_s(position))

    async def run(self) -> None:
        """Works until it is cancelled."""
        loop = asyncio.get_running_loop()
        scanned = loop.time() - SCAN_S
        while True:
            self._news.clear()
            if (since := loop.time() - scanned) >= SCAN_S:
                scanned = loop.time()
                await self._scan(since)
            while len(self._running) < self._concurrency and (ticket := self._next()) is not None:
                self._line.served(ticket)
                task = asyncio.create_task(self._attend(ticket))
                self._running[ticket] = task
                self._positions = None
                task.add_done_callback(functools.partial(self._ended, ticket))
            try:
                async with asyncio.timeout(max(0.01, min(scanned + SCAN_S - loop.time(), self._soonest()))):
                    await self._news.wait()
            except TimeoutError:
                continue

    async def close(self, drain_s: float) -> None:
        """Lets what runs end; what has not after drain_s is left to others, once its lease has ended."""
        running = list(self._running.values())
        if running:
            _, late = await asyncio.wait(running, timeout=drain_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _scan(self, since_s: float) -> None:
        before = set(self._known)
        try:
            announced = set(await self._store.announced())
        except FacetmeshError as error:
            _log.warning("the list of work cannot be read", extra={"reason": error.reason})
        else:
            # What came and went while the list was read, the list may not know.
            came, went = self._known - before, before - self._known
            if before or self._ended_since:
                self._pace.moved(self._ended_since + len(before - announced - went), since_s)
            self._ended_since = 0
            self._known = (announced - went) | came
            self._positions = None
            self._see([ticket.ref for ticket in self._known])
        self._rests = {ticket: until for ticket, until in self._rests.items() if ticket in self._known}

    def _next(self) -> Ticket | None:
        """What to work on next."""
        now = self._clock()
        ready = [one for one in self._known - self._running.keys() if self._rests.get(one, 0.0) <= now]
        return next(self._line.order(ready), None)

    def _soonest(self) -> float:
        """In how many seconds the next rest ends."""
        if len(self._running) >= self._concurrency:
            return SCAN_S
        waiting = [until for ticket, until in self._rests.items() if ticket not in self._running]
        return min(waiting, default=self._clock() + SCAN_S) - self._clock()

    async def _attend(self, ticket: Ticket) -> None:
        """Does what an operation needs, if anything."""
        ref = ticket.ref
        self._rests[ticket] = self._clock() + _REST_S
        try:
            operation = await self._store.get(ref)
            if operation is None:
                if self._clock() - ref.created_s > ABANDONED_S:
                    await self._worker.abandon(ref)
                return
            if operation.claimable(self._clock()):
                operation = await self._worker.work(operation)
            if operation.done:
                await self._worker.clear(operation)
                self._known.discard(ticket)
                self._ended_since += 1
            else:
                self._rests[ticket] = operation.until_s
        except FacetmeshError as error:
            _log.info("a job was not ended here", extra={"operation": ref.id, "reason": error.reason})
        except Exception:  # noqa: BLE001 - the others go on
            _log.exception("a job failed through our fault", extra={"operation": ref.id})

    def _ended(self, ticket: Ticket, _: asyncio.Task[None]) -> None:
        del self._running[ticket]
        self._positions = None
        self._news.set()
