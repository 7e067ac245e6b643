"""Tenants: the customers of the platform."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

from facetmesh.auth.plans import NO_LIMITS, Limits
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

    from facetmesh.auth.plans import Plans
    from facetmesh.kit.orders import TenantOrder

    Revoke = Callable[[str, float], Awaitable[None]]
    """Has the tokens of tenants/{tenant} or tenants/{tenant}/keys/{key} refused that were issued until then."""

RESERVED = frozenset({PLATFORM, SERVICES})
"""Ids that stand for the platform itself."""


class TenantState(StrEnum):
    """Whether a tenant is served."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    DELETED = "deleted"


class AuditPolicy(StrEnum):
    """Whether a tenant's answers wait for their audit events."""

    REQUIRED = "required"
    BEST_EFFORT = "best-effort"


@dataclass(frozen=True, slots=True)
class TenantSpec:
    """What a tenant is asked to be."""

    display_name: str = ""
    """What people call it."""
    plan: str = ""
    """A plan's id; the default's when empty."""
    region: str = ""
    """Where it is served; anywhere when empty."""
    limits: Limits = NO_LIMITS
    """What it may take; what its plan says where nothing is said."""
    allowed_models: tuple[str, ...] = ()
    """Ids of the only models that it may have, with * for any characters; any when empty."""
    licence_classes: tuple[str, ...] = ()
    """The classes of licences that it may use: permissive, copyleft, non-commercial; permissive when empty."""
    licences: tuple[str, ...] = ()
    """The licences that it may use beside them, by SPDX identifier."""
    audit_policy: str = AuditPolicy.REQUIRED
    """Whether its answers wait for their audit events."""
    url_allowlist: tuple[str, ...] = ()
    """The only hosts that inputs are fetched from, with *. for all below a name; none when empty."""
    result_days: int = 0
    """For how many days results of fusions are kept; what the operator has set when 0."""


@dataclass(frozen=True, slots=True)
class Tenant(TenantSpec):
    """One customer."""

    id: str = ""
    created_s: float = 0.0
    """When it was created, in seconds since the epoch."""
    request_id: str = ""
    """The request that created it, so that its repeat is recognised."""
    suspended_s: float | None = None
    """When it was shut out; None while it is not."""
    deleted_s: float | None = None
    """When it was deleted; None while it is not."""
    expires_s: float | None = None
    """From when on it cannot be undeleted; None while it is not deleted."""
    purging_s: float | None = None
    """When the destruction of its data began; None before."""
    purged_s: float | None = None
    """When all of its data was destroyed; None before."""
    key_rotated_s: float | None = None
    """When it was last given a new encryption key; None never."""
    etag: str = ""

    @property
    def state(self) -> TenantState:
        """Whether it is served."""
        if self.deleted_s is not None:
            return TenantState.DELETED
        return TenantState.ACTIVE if self.suspended_s is None else TenantState.SUSPENDED

    def tombstone(self, now: float) -> Tenant:
        """What is left of it once its data is destroyed."""
        return Tenant(
            id=self.id, created_s=self.created_s, deleted_s=self.deleted_s, expires_s=self.expires_s,
            purging_s=self.purging_s, purged_s=now, etag=self.etag,
        )  # fmt: skip


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

    async def note_deleted(self, tenant_id: str) -> None:
        """Notes that a tenant is about to be deleted, and will be to purge."""
        ...


class Tenants:
    """What can be done with tenants.

    Args:
        store: Where they are kept.
        plans: What they are offered.
        revoke: Has the tokens of a name refused that were issued until then.
        clock: Seconds since the epoch.
        grace_s: How long a deleted tenant can be undeleted, in seconds.
    """

    def __init__(
        self,
        store: TenantStore,
        plans: Plans,
        revoke: Revoke,
        clock: Callable[[], float],
        *,
        grace_s: float = 30 * 86_400,
    ) -> None:
        self._store = store
        self._plans = plans
        self._revoke = revoke
        self._clock = clock
        self._grace_s = grace_s

    async def create(self, tenant_id: str, spec: TenantSpec, request_id: str) -> Tenant:
        """A new tenant; for a repeated request_id, the one that the first call made.

        Raises:
            InvalidArgument: The id is reserved, or there is no such plan.
            AlreadyExists: The id is taken.
        """
        if tenant_id in RESERVED:
            raise InvalidArgument(f'The id "{tenant_id}" is reserved.', reason="TENANT_ID_RESERVED")
        spec = replace(spec, plan=self._plans.known(spec.plan))
        tenant = Tenant(**_fields(spec), id=tenant_id, created_s=self._clock(), request_id=request_id)
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

    async def update(self, tenant_id: str, change: Callable[[Tenant], TenantSpec], etag: str) -> Tenant:
        """The tenant, changed.

        Args:
            tenant_id: Which.
            change: What it is asked to be from now on, given what it is.
            etag: What it must have; "" for any.

        Raises:
            NotFound: There is none, or it is deleted.
            InvalidArgument: There is no such plan.
            Aborted: It has another etag.
        """
        tenant = await self.present(tenant_id)
        wanted = change(tenant)
        if wanted.plan != tenant.plan:  # one that the operator has taken away may stay
            wanted = replace(wanted, plan=self._plans.known(wanted.plan))
        return await self._change(tenant, etag, **_fields(wanted))

    async def suspend(self, tenant_id: str, etag: str) -> Tenant:
        """The tenant, shut out. A suspended one stays as it is. Raises as `update` does."""
        tenant = await self.present(tenant_id)
        since = self._clock() if tenant.suspended_s is None else tenant.suspended_s
        suspended = await self._change(tenant, etag, suspended_s=since)
        await self._revoke(f"tenants/{tenant_id}", self._clock())  # after the write, as in `keys`
        return suspended

    async def resume(self, tenant_id: str, etag: str) -> Tenant:
        """The tenant, let in again. An active one stays as it is. Raises as `update` does."""
        return await self._change(await self.present(tenant_id), etag, suspended_s=None)

    async def delete(self, tenant_id: str, etag: str) -> Tenant:
        """The tenant, deleted for as long as the grace lasts. Raises as `update` does."""
        tenant, now = await self.present(tenant_id), self._clock()
        await self._store.note_deleted(tenant_id)
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
        if tenant.purging_s is not None or self._clock() >= tenant.expires_s:
            raise FailedPrecondition("The tenant was deleted too long ago.", reason="TENANT_EXPIRED")
        return await self._change(tenant, etag, deleted_s=None, expires_s=None)

    async def rotate_key(self, tenant_id: str, order: Callable[[str], Awaitable[TenantOrder]]) -> Tenant:
        """The tenant, with a new encryption key from now on.

        Args:
            tenant_id: Which.
            order: Has every service make it.

        Raises:
            NotFound: There is none, or it is deleted.
            ResourceExhausted: Too many orders wait.
            Aborted: It was changed meanwhile.
        """
        tenant = await self.present(tenant_id)
        return await self._change(tenant, "", key_rotated_s=(await order(tenant_id)).time_s)

    async def ids(self) -> list[str]:
        """All ids, sorted."""
        return await self._store.tenant_ids()

    async def _change(self, tenant: Tenant, etag: str, **changes: Any) -> Tenant:
        if etag not in ("", tenant.etag):
            raise Aborted("The tenant was changed meanwhile: read it again.", reason="ETAG_MISMATCH")
        changed = replace(tenant, **changes)
        if changed == tenant:
            return tenant
        await self._store.save_tenant(changed)
        return await self.get(tenant.id)


def _fields(spec: TenantSpec) -> dict[str, Any]:
    return {field.name: getattr(spec, field.name) for field in fields(TenantSpec)}


def _no_such_tenant() -> NotFound:
    return NotFound("There is no such tenant.", reason="TENANT_NOT_FOUND")
