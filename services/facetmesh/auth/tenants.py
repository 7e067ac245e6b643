"""Tenants: the customers of the platform."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from facetmesh.kit.apikeys import PLATFORM, SERVICES
from facetmesh.kit.errors import AlreadyExists, InvalidArgument, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable

RESERVED = frozenset({PLATFORM, SERVICES})
"""Ids that stand for the platform itself."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """One customer."""

    id: str
    display_name: str
    created_s: float
    """When it was created, in seconds since the epoch."""
    request_id: str = ""
    """The request that created it, so that its repeat is recognised."""
    etag: str = ""


class TenantStore(Protocol):
    """Where tenants are kept."""

    async def tenant(self, tenant_id: str) -> Tenant | None:
        """The tenant."""
        ...

    async def create_tenant(self, tenant: Tenant) -> bool:
        """Stores a new tenant; False when there is one with its id."""
        ...

    async def tenant_ids(self) -> list[str]:
        """All ids, sorted."""
        ...


class Tenants:
    """What can be done with tenants.

    Args:
        store: Where they are kept.
        clock: Seconds since the epoch.
    """

    def __init__(self, store: TenantStore, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock

    async def create(self, tenant_id: str, display_name: str, request_id: str) -> Tenant:
        """A new tenant; for a repeated request_id, the one that the first call made.

        Raises:
            InvalidArgument: The id is reserved.
            AlreadyExists: The id is taken.
        """
        if tenant_id in RESERVED:
            raise InvalidArgument(f'The id "{tenant_id}" is reserved.', reason="TENANT_ID_RESERVED")
        tenant = Tenant(tenant_id, display_name, self._clock(), request_id)
        if await self._store.create_tenant(tenant):
            return await self.get(tenant_id)
        existing = await self.get(tenant_id)
        if request_id and existing.request_id == request_id:
            return existing
        raise AlreadyExists(f'There is a tenant "{tenant_id}" already.', reason="TENANT_EXISTS")

    async def get(self, tenant_id: str) -> Tenant:
        """The tenant.

        Raises:
            NotFound: There is none.
        """
        tenant = await self._store.tenant(tenant_id)
        if tenant is None:
            raise NotFound("There is no such tenant.", reason="TENANT_NOT_FOUND")
        return tenant

    async def ids(self) -> list[str]:
        """All ids, sorted."""
        return await self._store.tenant_ids()
