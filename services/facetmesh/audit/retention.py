"""How long events can be read. What expires is an event's body; its entry stays, and the log verifies as before."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from facetmesh.kit.errors import Aborted, FacetmeshError, InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_DAYS = 36_500
"""The longest retention, in days."""
EVERY_S = 600.0
"""How often expired bodies are looked for, in seconds."""
_DAY_US = 24 * 3600 * 1_000_000
_AT_ONCE = 2000
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Retention:
    """How long a tenant's events are kept."""

    tenant: str
    """The tenant's id."""
    days: int = 0
    """How long after its time an event can be read, in days; for ever when 0."""
    hold: bool = False
    """A legal hold: nothing expires while it is set."""
    reason: str = ""
    """Why it is held, for who asks later."""
    changed_us: int = 0
    """When it was set, in microseconds since the epoch; 0 for what was never set."""

    @property
    def etag(self) -> str:
        """Changes with each change."""
        return format(self.changed_us, "x")

    def expired_us(self, now_us: int) -> int | None:
        """Events from before this time have expired; None when none has."""
        return None if self.hold or not self.days else now_us - self.days * _DAY_US


class RetentionStore(Protocol):
    """Where it is kept. Every method raises Unavailable when the store does not work."""

    async def retention(self, tenant: str) -> Retention | None:
        """What was set for a tenant."""
        ...

    async def retentions(self) -> list[Retention]:
        """What was set, for all tenants."""
        ...

    async def set_retention(self, new: Retention, *, changed_us: int) -> bool:
        """Sets a tenant's retention unless it was changed since changed_us."""
        ...

    async def expire(self, tenant: str, before_us: int, limit: int) -> int:
        """Removes the bodies of a tenant's oldest events from before a time; returns how many."""
        ...


class Retentions:
    """The tenants' retention, set and carried out.

    Args:
        store: Where it is kept.
        clock: Seconds since the epoch.
    """

    def __init__(self, store: RetentionStore, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock

    async def get(self, tenant: str) -> Retention:
        """A tenant's retention; for ever where none was set."""
        return await self._store.retention(tenant) or Retention(tenant)

    async def change(
        self, tenant: str, change: Callable[[Retention], Retention], *, etag: str = ""
    ) -> Retention:
        """Changes a tenant's retention.

        Args:
            tenant: The tenant's id.
            change: Makes what is to be out of what is.
            etag: Of what the caller has seen; "" when that does not matter.

        Raises:
            InvalidArgument: RETENTION_INVALID, or HOLD_UNEXPLAINED: a hold needs a reason.
            Aborted: Somebody else changed it meanwhile.
        """
        old = await self.get(tenant)
        wanted = change(old)
        if not 0 <= wanted.days <= MAX_DAYS:
            raise InvalidArgument(f"Retention is 0 to {MAX_DAYS} days.", reason="RETENTION_INVALID")
        if wanted.hold and not wanted.reason:
            raise InvalidArgument("A legal hold needs a reason.", reason="HOLD_UNEXPLAINED")
        new = Retention(tenant, wanted.days, wanted.hold, wanted.reason, max(self._now_us(), old.changed_us + 1))
        stale = etag not in {"", old.etag}
        if stale or not await self._store.set_retention(new, changed_us=old.changed_us):
            raise Aborted("Somebody else changed it meanwhile: read it again, then retry.")
        return new

    async def sweep(self) -> int:
        """Removes what has expired; returns how many bodies that were."""
        removed = 0
        for one in await self._store.retentions():
            before_us = one.expired_us(self._now_us())
            while before_us is not None:
                some = await self._store.expire(one.tenant, before_us, _AT_ONCE)
                removed += some
                if some < _AT_ONCE:
                    break
        return removed

    async def run(self) -> None:
        """Sweeps again and again, for ever."""
        while True:
            try:
                removed = await self.sweep()
                if removed:
                    _log.info("bodies expired", extra={"count": removed})
            except FacetmeshError as error:
                _log.warning("what has expired could not be removed", extra={"reason": error.reason})
            await asyncio.sleep(EVERY_S)

    def _now_us(self) -> int:
        return int(self._clock() * 1e6)
