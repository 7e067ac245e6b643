"""Events that come one by one, handled together with those that came meanwhile."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from facetmesh.kit.dapr.receiver import Disposition, Event, Handler


class Together:
    """A handler that gives another one many events at once, where the sidecar does not.

    The first event is handled at once. Those that come while it is being handled are the
    next batch: nobody waits for others to come, and the busier it is, the larger a batch.

    Args:
        handler: What handles batches. One that it raises for comes again as a whole.
        most: How many events a batch has at most, unless one call brings more.
    """

    def __init__(self, handler: Handler, most: int = 256) -> None:
        self._handler = handler
        self._most = most
        self._waiting: list[tuple[Sequence[Event], asyncio.Future[Sequence[Disposition]]]] = []
        self._working: asyncio.Task[None] | None = None

    async def handle(self, events: Sequence[Event]) -> Sequence[Disposition]:
        """What becomes of the events.

        Raises:
            Exception: What the handler raised for their batch.
        """
        verdict: asyncio.Future[Sequence[Disposition]] = asyncio.get_running_loop().create_future()
        self._waiting.append((events, verdict))
        if self._working is None:
            self._working = asyncio.create_task(self._work())
        return await verdict

    async def _work(self) -> None:
        while batch := self._next():
            try:
                dispositions = await self._handler([event for events, _ in batch for event in events])
            except Exception as error:  # noqa: BLE001 - whatever it is, it is for those who wait
                for _, verdict in batch:
                    if not verdict.done():
                        verdict.set_exception(error)
                continue
            begin = 0
            for events, verdict in batch:
                if not verdict.done():
                    verdict.set_result(dispositions[begin : begin + len(events)])
                begin += len(events)
        self._working = None

    def _next(self) -> list[tuple[Sequence[Event], asyncio.Future[Sequence[Disposition]]]]:
        size = count = 0
        for events, _ in self._waiting:
            if count and size + len(events) > self._most:
                break
            size += len(events)
            count += 1
        batch, self._waiting = self._waiting[:count], self._waiting[count:]
        return batch
