"""Usage: what was done for each tenant, by hour and model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

from facetmesh.kit.updates import update

if TYPE_CHECKING:
    from collections.abc import Mapping

HOUR_S = 3600
_HOURS_A_DAY = 24


@dataclass(frozen=True, slots=True)
class Counts:
    """Work of one model, or (for the model "") of all calls."""

    calls: int = 0
    images: int = 0
    compute_s: float = 0.0
    stored_bytes: int = 0
    """Kept at the end; of the tenant as a whole only."""

    def __add__(self, other: Counts) -> Counts:
        """Both; of what is kept, the later."""
        return Counts(
            self.calls + other.calls, self.images + other.images, self.compute_s + other.compute_s,
            other.stored_bytes or self.stored_bytes,
        )  # fmt: skip


NO_COUNTS = Counts()


@dataclass(frozen=True, slots=True)
class Day:
    """A tenant's usage of one day (UTC)."""

    number: int
    """Days since the epoch."""
    hours: Mapping[int, Mapping[str, Counts]]
    """By hour since the epoch, then by model."""
    etag: str = ""

    def with_hour(self, hour: int, work: Mapping[str, Counts]) -> Day:
        """The day with the work of an hour, in place of what it had there."""
        return replace(self, hours={**self.hours, hour: work})


class UsageStore(Protocol):
    """Where usage is kept."""

    async def usage_day(self, tenant_id: str, day: int) -> Day:
        """The usage of a day; an empty one where there is none."""
        ...

    async def save_usage_day(self, tenant_id: str, day: Day) -> None:
        """Stores a day in place of the one that was read.

        Raises:
            Aborted: It was changed since.
        """
        ...


@dataclass(frozen=True, slots=True)
class Usage:
    """What was done with one model in one period."""

    start_s: float
    """When the period began, in seconds since the epoch."""
    model: str
    """tenants/{tenant}/models/{model}; "" for the tenant as a whole, others for those beyond the number counted."""
    counts: Counts


class UsageHistory:
    """Usage of the hours that are over.

    Args:
        store: Where it is kept.
    """

    def __init__(self, store: UsageStore) -> None:
        self._store = store

    async def add(self, tenant_id: str, hours: Mapping[int, Mapping[str, Counts]]) -> None:
        """Keeps the work of hours. Keeping the same again changes nothing, so that a crash does no harm.

        Raises:
            Aborted: Too many keep at once.
        """
        for hour, work in hours.items():
            await update(
                partial(self._store.usage_day, tenant_id, hour // _HOURS_A_DAY),
                partial(Day.with_hour, hour=hour, work=work),
                partial(self._store.save_usage_day, tenant_id),
            )

    async def between(
        self, tenant_id: str, start_s: float, end_s: float, current: Mapping[int, Mapping[str, Counts]], *, daily: bool
    ) -> list[Usage]:
        """Usage from a time to another, by hour or day, the oldest first, within a period by model.

        Args:
            tenant_id: Whose.
            start_s: From the hour of this time on, in seconds since the epoch.
            end_s: Until before this time.
            current: What is not kept yet.
            daily: By day.
        """
        first, last = int(start_s // HOUR_S), int(-(-end_s // HOUR_S))
        hours: dict[int, Mapping[str, Counts]] = {}
        for number in range(first // _HOURS_A_DAY, (last - 1) // _HOURS_A_DAY + 1):
            hours.update((await self._store.usage_day(tenant_id, number)).hours)
        hours.update(current)
        found: dict[tuple[int, str], Counts] = {}
        for hour, work in sorted(hours.items()):
            if first <= hour < last:
                period = hour // _HOURS_A_DAY * _HOURS_A_DAY if daily else hour
                for model, counts in work.items():
                    found[period, model] = found.get((period, model), NO_COUNTS) + counts
        return [Usage(period * HOUR_S, model, counts) for (period, model), counts in sorted(found.items())]
