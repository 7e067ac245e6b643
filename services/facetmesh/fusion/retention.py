"""How long results are kept. What expires is the picture; the operation and its imprint stay, and answer for it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from facetmesh.fusion.images import Images
    from facetmesh.fusion.operations import Operation, Ref

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


class Profile(Protocol):
    """A tenant's settings: `kit.profiles.Profile`."""

    @property
    def result_days(self) -> int:
        """For how many days results are kept; 0 for what the operator has set."""
        ...


class Profiles(Protocol):
    """Who knows the tenants' settings: `kit.leases.Leases`."""

    async def current(self, tenant: str) -> Profile | None:
        """The settings of tenants/{tenant} as they are now; None where it is not served."""
        ...


class Terms:
    """For how many days each tenant's results are kept: what it has set itself, else what the operator has.

    Args:
        profiles: Who knows what tenants have set.
        usual: What the operator has set, by the tenant's id.
    """

    def __init__(self, profiles: Profiles, usual: Callable[[str], int]) -> None:
        self._profiles = profiles
        self._usual = usual

    async def days(self, tenant_id: str) -> int | None:
        """For how many days; for ever when 0. None where the tenant is not served: what it had set is not known.

        Raises:
            Unavailable: Nobody can tell now.
        """
        profile = await self._profiles.current(f"tenants/{tenant_id}")
        return None if profile is None else profile.result_days or self._usual(tenant_id)


class Sweeper:
    """Deletes results when their time is over.

    Args:
        store: What was stored when.
        images: What was made.
        days: For how many whole days after the day on which it was made a tenant's result is kept, by the tenant's id;
            for ever when 0. None where nobody can tell now: then it is kept.
        clock: Seconds since the epoch.
    """

    def __init__(
        self, store: Store, images: Images, days: Callable[[str], Awaitable[int | None]], clock: Callable[[], float]
    ) -> None:
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
        kept_days: dict[str, int | None] = {}
        for day in [day for day in await self._store.result_days() if day < today]:
            refs = await self._store.results_of(day)
            for tenant_id in {ref.tenant_id for ref in refs} - kept_days.keys():
                kept_days[tenant_id] = await self._days(tenant_id)
            over = [ref for ref in refs if await self._over(ref, today - day, kept_days[ref.tenant_id])]
            for ref in over:
                if (operation := await self._store.get(ref)) is not None:
                    await self._images.delete_results(operation)
                count += 1
                if len(over) < len(refs):
                    await self._store.forget_result(ref, day)
            if len(over) == len(refs):
                await self._store.forget_results(day)
        if count:
            _log.info("results have expired", extra={"count": count})
        return count

    async def _over(self, ref: Ref, age_days: int, kept_days: int | None) -> bool:
        if kept_days is None:
            return await self._store.get(ref) is None  # the tenant has been purged: only this note is left
        return 0 < kept_days < age_days


def day_of(seconds: float) -> int:
    """The day, counted since the epoch."""
    return int(seconds // 86_400)
