"""The end of deleted tenants: once their grace has passed, all that is kept of them is destroyed, everywhere.

Each step can be repeated, and is written down before the next begins: who is
killed in between goes on where he was. In the end a tombstone is left, so that
the tenant's id is never given to another.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from facetmesh.kit.errors import FacetmeshError
from facetmesh.kit.orders import OrderKind

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from facetmesh.auth.orders import Orders
    from facetmesh.auth.tenants import Tenant

_log = logging.getLogger(__name__)


_DAY_S = 86_400


class LimitsStore(Protocol):
    """Where limits, usage and policies are kept."""

    async def delete_all(self, tenant_id: str, days: Iterable[int]) -> None:
        """Deletes what is kept of a tenant; what it used in these days, counted since the epoch."""
        ...


class PurgeStore(Protocol):
    """Where tenants and keys are kept."""

    async def tenant(self, tenant_id: str) -> Tenant | None:
        """The tenant."""
        ...

    async def save_tenant(self, tenant: Tenant) -> None:
        """Stores a tenant in place of the one that was read."""
        ...

    async def deleted_ids(self) -> list[str]:
        """The ids of tenants that may be deleted and not yet purged."""
        ...

    async def forget_deleted(self, tenant_id: str) -> None:
        """Notes that a tenant is purged."""
        ...

    async def delete_keys(self, tenant_id: str) -> None:
        """Deletes what is kept of a tenant's keys, and their index."""
        ...


class Purger:
    """Purges tenants.

    Args:
        store: Where tenants and keys are kept.
        limits: Where limits, usage and policies are kept.
        orders: What the other services are told to do.
        account: Records that a tenant was purged; returns when the record is durable.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        store: PurgeStore,
        limits: LimitsStore,
        orders: Orders,
        account: Callable[[str], Awaitable[None]],
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._limits = limits
        self._orders = orders
        self._account = account
        self._clock = clock

    async def sweep(self) -> None:
        """Takes each tenant whose grace has passed as far as it goes now. What fails is tried by the next sweep."""
        for tenant_id in await self._store.deleted_ids():
            try:
                await self._purge(tenant_id)
            except FacetmeshError as error:
                _log.warning("a tenant is not purged yet", extra={"tenant": tenant_id, "reason": error.reason})

    async def run(self, every_s: float) -> None:
        """Sweeps for ever."""
        while True:
            try:
                await self.sweep()
            except FacetmeshError as error:
                _log.warning("deleted tenants could not be looked for", extra={"reason": error.reason})
            await asyncio.sleep(every_s)

    async def _purge(self, tenant_id: str) -> None:
        tenant = await self._store.tenant(tenant_id)
        if tenant is None or tenant.expires_s is None or self._clock() < tenant.expires_s:
            return
        if tenant.purging_s is None:
            # From here on there is no way back, whatever a replica's clock says.
            await self._store.save_tenant(replace(tenant, purging_s=self._clock()))
        elif tenant.purged_s is not None:
            await self._orders.forget(tenant_id)
            await self._store.forget_deleted(tenant_id)
        elif (given := await self._orders.find(tenant_id, OrderKind.PURGE)) is None:
            await self._orders.give(tenant_id, OrderKind.PURGE)
        elif not given.pending:
            await self._store.delete_keys(tenant_id)
            # A day more on either side: clocks of replicas differ.
            days = range(int(tenant.created_s // _DAY_S) - 1, int(self._clock() // _DAY_S) + 2)
            await self._limits.delete_all(tenant_id, days)
            await self._account(tenant_id)
            await self._store.save_tenant(tenant.tombstone(self._clock()))
