"""How much work there is, as the dispatcher last saw it: for metrics and for who decides how many workers there are."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from facetmesh.kit.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection

    from facetmesh.fusion.operations import Ref

STALE_S = 30.0
"""What was seen so long ago says nothing of now."""


@dataclass(frozen=True, slots=True)
class Load:
    """The jobs that have not ended, of all tenants and replicas."""

    jobs: int
    """How many."""
    oldest_s: float
    """How long ago the oldest was asked for, in seconds; 0 where there is none."""


class Backlog:
    """Remembers what was last seen.

    Args:
        clock: Seconds since the epoch.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._jobs = 0
        self._oldest: float | None = None
        """When the oldest was asked for."""
        self._seen_at: float | None = None
        self._changed = asyncio.Event()

    def see(self, work: Collection[Ref]) -> None:
        """Takes note of all that has not ended."""
        news = self._seen_at is None or self._jobs != len(work)
        self._jobs, self._oldest = len(work), min((ref.created_s for ref in work), default=None)
        self._seen_at = self._clock()
        if news:
            self._changed.set()
            self._changed = asyncio.Event()

    def load(self) -> Load:
        """What there is.

        Raises:
            Unavailable: BACKLOG_UNKNOWN: nothing was seen yet, or not for 30 seconds. No news is not no work.
        """
        now = self._clock()
        if self._seen_at is None or now - self._seen_at > STALE_S:
            raise Unavailable("How much work there is cannot be seen now.", reason="BACKLOG_UNKNOWN")
        return Load(self._jobs, max(0.0, now - self._oldest) if self._oldest is not None else 0.0)

    async def above(self, jobs: float) -> AsyncIterator[bool]:
        """Whether there are more jobs than so many: now, and whenever it changes.

        Raises:
            Unavailable: As `load`.
        """
        told: bool | None = None
        while True:
            changed = self._changed
            if (is_above := self.load().jobs > jobs) is not told:
                told = is_above
                yield is_above
            try:
                async with asyncio.timeout(STALE_S):
                    await changed.wait()
            except TimeoutError:
                continue
