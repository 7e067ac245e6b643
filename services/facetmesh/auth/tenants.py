"""Tenants: the customers of the platform."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from facetmesh.kit.apikeys import PLATFORM, SERVICES
from facetmesh.kit.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Revoke = Callable[[str, float], Awaitable[None]]
    """Has the tokens of tenants/{tenant} or tenants/{tenant}/keys/{key} refused that were issued until then."""

RESERVED = frozenset({PLATFORM, SERVICES})
"""Ids that stand for the platform itself."""


class TenantState(StrEnum):
    """Whether a tenant is served."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class Tenant:
    """One customer."""

    id: str
    display_name: str
    created_s: float
    """When it was created, in seconds since the epoch."""
    request_id: str = ""
    """The request that created it, so that its repeat is recognised."""
    suspended_s: float | None = None
    """When it was shut out; None while it is not."""
    deleted_s: float | None = None
    """When it was deleted; None while it is not."""
    expires_s: float | None = None
    """From when on it cannot be undeleted; None while it is not deleted."""
    etag: str = ""

    @property
    def state(self) -> TenantState:
        """Whether it is served."""
        if self.deleted_s is not None:
            return TenantState.DELETED
        return TenantState.ACTIVE if self.suspended_s is None else TenantState.SUSPENDED


class TenantStore(Protocol):
    """Where tenants are kept."""

    async def tenant(self, tenant_id: str) -> Tenant | None:
        """The tenant."""
        ...

    async def create_tenant(self, tenant: Tenant) -> bool:
        """Stores a new tenant; False when there is one with its id."""
        ...

    async def save_tenant(self, tenant: Tenant) -> None:
        """Stores a tenant in place of the one that was read.

        Raises:
            Aborted: It was changed since.
        """
        ...

    async def tenant_ids(self) -> list[str]:
        """All ids, sorted."""
        ...


class Tenants:
    """What can be done with tenants.

    Args:
        store: Where they are kept.
        revoke: Has the tokens of a name refused that were issued until then.
        clock: Seconds since the epoch.
        grace_s: How long a deleted tenant can be undeleted, in seconds.
    """

    def __init__(
        self, store: TenantStore, revoke: Revoke, clock: Callable[[], float], *, grace_s: float = 30 * 86_400
    ) -> None:
        self._store = store
        self._revoke = revoke
        self._clock = clock
        self._grace_s = grace_s

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
        """The tenant, deleted or not.

        Raises:
            NotFound: There is none.
        """
        tenant = await self._store.tenant(tenant_id)
        if tenant is None:
            raise _no_such_tenant()
        return tenant

    async def present(self, tenant_id: str) -> Tenant:
        """The tenant, suspended or not.

        Raises:
            NotFound: There is none, or it is deleted.
        """
        tenant = await self.get(tenant_id)
        if tenant.state is TenantState.DELETED:
            raise _no_such_tenant()
        return tenant

    async def served(self, tenant_id: str) -> Tenant:
        """The tenant, if it is served.

        Raises:
            NotFound: There is none, or it is deleted.
            PermissionDenied: It is suspended.
        """
        tenant = await self.present(tenant_id)
        if tenant.state is TenantState.SUSPENDED:
            raise PermissionDenied("The tenant is suspended: ask who runs the platform.", reason="TENANT_SUSPENDED")
        return tenant

    async def rename(self, tenant_id: str, display_name: str, etag: str) -> Tenant:
        """The tenant, called otherwise.

        Args:
            tenant_id: Which.
            display_name: What people call it from now on.
            etag: What it must have; "" for any.

        Raises:
            NotFound: There is none, or it is deleted.
            Aborted: It has another etag.
        """
        return await self._change(await self.present(tenant_id), etag, display_name=display_name)

    async def suspend(self, tenant_id: str, etag: str) -> Tenant:
        """The tenant, shut out. A suspended one stays as it is. Raises as `rename` does."""
        tenant = await self.present(tenant_id)
        since = self._clock() if tenant.suspended_s is None else tenant.suspended_s
        suspended = await self._change(tenant, etag, suspended_s=since)
        await self._revoke(f"tenants/{tenant_id}", self._clock())  # after the write, as in `keys`
        return suspended

    async def resume(self, tenant_id: str, etag: str) -> Tenant:
        """The tenant, let in again. An active one stays as it is. Raises as `rename` does."""
        return await self._change(await self.present(tenant_id), etag, suspended_s=None)

    async def delete(self, tenant_id: str, etag: str) -> Tenant:
        """The tenant, deleted for as long as the grace lasts. Raises as `rename` does."""
        tenant, now = await self.present(tenant_id), self._clock()
        deleted = await self._change(tenant, etag, deleted_s=now, expires_s=now + self._grace_s)
        await self._revoke(f"tenants/{tenant_id}", self._clock())
        return deleted

    async def undelete(self, tenant_id: str, etag: str) -> Tenant:
        """The tenant as it was before it was deleted.

        Raises:
            NotFound: There is none.
            AlreadyExists: It is not deleted.
            FailedPrecondition: The grace has passed.
            Aborted: It has another etag.
        """
        tenant = await self.get(tenant_id)
        if tenant.expires_s is None:
            raise AlreadyExists("The tenant is not deleted.", reason="TENANT_NOT_DELETED")
        if self._clock() >= tenant.expires_s:
            raise FailedPrecondition("The tenant was deleted too long ago.", reason="TENANT_EXPIRED")
        return await self._change(tenant, etag, deleted_s=None, expires_s=None)

    async def ids(self) -> list[str]:
        """All ids, sorted."""
        return await self._store.tenant_ids()

    async def _change(self, tenant: Tenant, etag: str, **changes: str | float | None) -> Tenant:
        if etag not in ("", tenant.etag):
            raise Aborted("The tenant was changed meanwhile: read it again.", reason="ETAG_MISMATCH")
        changed = replace(tenant, **changes)  # type: ignore[arg-type] # the callers above name its fields
        if changed == tenant:
            return tenant
        await self._store.save_tenant(changed)
        return await self.get(tenant.id)


def _no_such_tenant() -> NotFound:
    return NotFound("There is no such tenant.", reason="TENANT_NOT_FOUND")
