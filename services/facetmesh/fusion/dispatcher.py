"""The dispatcher: finds jobs that want work, and hands them to workers, fairly between tenants."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections import Counter
from typing import TYPE_CHECKING

from facetmesh.kit.errors import FacetmeshError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from facetmesh.fusion.operations import Ref
    from facetmesh.fusion.registry import Registry
    from facetmesh.fusion.worker import Worker

SCAN_S = 2.0
"""How often the list of work is read, whatever events say."""
ABANDONED_S = 600.0
"""A request that has not become an operation after so long never will."""
_REST_S = 1.0
_log = logging.getLogger(__name__)


class Dispatcher:
    """Runs a worker's jobs, several at a time.

    Args:
        registry: The operations.
        worker: Does the jobs.
        concurrency: How many at a time; 0 leaves them to other replicas.
        see: Is told of all work that is left, whenever the list of it was read.
    """

    def __init__(
        self,
        registry: Registry,
        worker: Worker,
        concurrency: int,
        see: Callable[[Collection[Ref]], None] = lambda _: None,
    ) -> None:
        self._store = registry.store
        self._worker = worker
        self._concurrency = concurrency
        self._see = see
        self._clock = registry.clock
        self._known: set[Ref] = set()
        self._rests: dict[Ref, float] = {}
        self._running: dict[Ref, asyncio.Task[None]] = {}
        self._news = asyncio.Event()

    def wake(self, ref: Ref) -> None:
        """Looks at an operation now."""
        self._known.add(ref)
        self._rests.pop(ref, None)
        self._news.set()

    async def run(self) -> None:
        """Works until it is cancelled."""
        loop = asyncio.get_running_loop()
        scan_at = loop.time()
        while True:
            self._news.clear()
            if loop.time() >= scan_at:
                await self._scan()
                scan_at = loop.time() + SCAN_S
            while len(self._running) < self._concurrency and (ref := self._next()) is not None:
                task = asyncio.create_task(self._attend(ref))
                self._running[ref] = task
                task.add_done_callback(functools.partial(self._ended, ref))
            try:
                async with asyncio.timeout(max(0.01, min(scan_at - loop.time(), self._soonest()))):
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

    async def _scan(self) -> None:
        try:
            self._known = set(await self._store.announced())
            self._see(self._known)
        except FacetmeshError as error:
            _log.warning("the list of work cannot be read", extra={"reason": error.reason})
        self._rests = {ref: until for ref, until in self._rests.items() if ref in self._known}

    def _next(self) -> Ref | None:
        """What to work on next: of the tenant with the fewest jobs in work, the oldest."""
        now = self._clock()
        ready = [ref for ref in self._known - self._running.keys() if self._rests.get(ref, 0.0) <= now]
        busy = Counter(ref.tenant_id for ref in self._running)
        return min(ready, key=lambda ref: (busy[ref.tenant_id], ref.id), default=None)

    def _soonest(self) -> float:
        """In how many seconds the next rest ends."""
        if len(self._running) >= self._concurrency:
            return SCAN_S
        waiting = [until for ref, until in self._rests.items() if ref not in self._running]
        return min(waiting, default=self._clock() + SCAN_S) - self._clock()

    async def _attend(self, ref: Ref) -> None:
        """Does what an operation needs, if anything."""
        self._rests[ref] = self._clock() + _REST_S
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
                self._known.discard(ref)
            else:
                self._rests[ref] = operation.until_s
        except FacetmeshError as error:
            _log.info("a job was not ended here", extra={"operation": ref.id, "reason": error.reason})
        except Exception:  # noqa: BLE001 - the others go on
            _log.exception("a job failed through our fault", extra={"operation": ref.id})

    def _ended(self, ref: Ref, _: asyncio.Task[None]) -> None:
        del self._running[ref]
        self._news.set()
