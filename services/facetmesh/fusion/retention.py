"""How long results are kept. What expires is the picture; the operation and its imprint stay, and answer for it."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Protocol

from facetmesh.kit.errors import FacetmeshError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from facetmesh.fusion.images import Images
    from facetmesh.fusion.operations import Operation, Ref

EVERY_S = 600.0
"""How often it is looked for what has expired, in seconds."""
_log = logging.getLogger(__name__)


class Store(Protocol):
    """Where it is noted which results were stored on which day."""

    async def get(self, ref: Ref) -> Operation | None:
        """The operation; None when there is none."""
        ...

    async def result_days(self) -> list[int]:
        """The days, counted since the epoch, on which results were stored."""
        ...

    async def results_of(self, day: int) -> list[Ref]:
        """What was stored on a day; some may have no record, or no result."""
        ...

    async def forget_result(self, ref: Ref, day: int) -> None:
        """Notes that what was stored of an operation on a day is not kept any more."""
        ...

    async def forget_results(self, day: int) -> None:
        """Notes that nothing of a day is kept any more."""
        ...


async def keep_sweeping(*sweeps: Callable[[], Awaitable[int]]) -> None:
    """Has what has expired deleted, again and again, until it is cancelled."""
    while True:
        for sweep in sweeps:
            try:
                await sweep()
            except FacetmeshError as error:
                _log.warning("what has expired could not be deleted", extra={"reason": error.reason})
        await asyncio.sleep(EVERY_S)


class Sweeper:
    """Deletes results when their time is over.

    Args:
        store: What was stored when.
        images: What was made.
        days: For how many whole days after the day on which it was made a tenant's result is kept, by the tenant's id;
            for ever when 0.
        clock: Seconds since the epoch.
    """

    def __init__(self, store: Store, images: Images, days: Callable[[str], int], clock: Callable[[], float]) -> None:
        self._store = store
        self._images = images
        self._days = days
        self._clock = clock

    async def sweep(self) -> int:
        """Deletes the results whose time is over; returns of how many operations. Repeating it does no harm.

        Raises:
            Unavailable: Something may be left.
        """
        count = 0
        today = day_of(self._clock())
        for day in await self._store.result_days():
            refs = await self._store.results_of(day)
            over = [ref for ref in refs if 0 < self._days(ref.tenant_id) < today - day]
            for ref in over:
                if (operation := await self._store.get(ref)) is not None:
                    await self._images.delete_results(operation)
                count += 1
                if len(over) < len(refs):
                    await self._store.forget_result(ref, day)
            if len(over) == len(refs) and day < today:
                await self._store.forget_results(day)
        if count:
            _log.info("results have expired", extra={"count": count})
        return count


def day_of(seconds: float) -> int:
    """The day, counted since the epoch."""
    return int(seconds // 86_400)
