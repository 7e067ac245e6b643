"""The client's calls that manage tenants and keys."""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from facetmesh.auth.v1 import auth_pb2
from facetmesh.client import calls

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from facetmesh.access.v1 import access_pb2


class Administration(ABC):
    """What AsyncClient can do with tenants and keys."""

    _auth: Any  # auth_pb2_grpc.AuthServiceStub, whose stubs differ for grpc.aio

    async def create_tenant(
        self, tenant_id: str, *, display_name: str = "", licence_classes: Sequence[str] = (),
    ) -> auth_pb2.Tenant:
        """Creates a tenant. For platform admins.

        Args:
            tenant_id: Its id.
            display_name: What people call it.
            licence_classes: What its models' licences may ask for: permissive, copyleft, non-commercial; permissive
                ones only when empty.
        """
        classes = [calls.licence_class(name) for name in licence_classes]
        tenant = auth_pb2.Tenant(
            display_name=display_name, licence_policy=auth_pb2.LicencePolicy(classes=classes) if classes else None,
        )
        request = auth_pb2.CreateTenantRequest(tenant_id=tenant_id, tenant=tenant, request_id=str(uuid.uuid4()))
        return await calls.result(self._auth.CreateTenant(request))

    async def get_tenant(self, tenant: str) -> auth_pb2.Tenant:
        """Returns a tenant."""
        return await calls.result(self._auth.GetTenant(auth_pb2.GetTenantRequest(name=calls.tenant_name(tenant))))

    async def list_tenants(self, *, limit: int | None = None, show_deleted: bool = False) -> list[auth_pb2.Tenant]:
        """The tenants, in the order of their ids; all when limit is None. For platform admins."""
        request = auth_pb2.ListTenantsRequest(show_deleted=show_deleted)
        return await calls.pages(self._auth.ListTenants, request, "tenants", limit)

    async def update_tenant(self, tenant: str, *, display_name: str, etag: str = "") -> auth_pb2.Tenant:
        """Changes what people call a tenant; only if it still has the etag, where one is given. For platform admins."""
        wanted = auth_pb2.Tenant(name=calls.tenant_name(tenant), display_name=display_name, etag=etag)
        request = auth_pb2.UpdateTenantRequest(tenant=wanted)
        request.update_mask.paths.append("display_name")
        return await calls.result(self._auth.UpdateTenant(request))

    async def suspend_tenant(self, tenant: str, *, etag: str = "") -> auth_pb2.Tenant:
        """Shuts a tenant out until it is resumed. For platform admins."""
        request = auth_pb2.SuspendTenantRequest(name=calls.tenant_name(tenant), etag=etag)
        return await calls.result(self._auth.SuspendTenant(request))

    async def resume_tenant(self, tenant: str, *, etag: str = "") -> auth_pb2.Tenant:
        """Lets a suspended tenant in again. For platform admins."""
        request = auth_pb2.ResumeTenantRequest(name=calls.tenant_name(tenant), etag=etag)
        return await calls.result(self._auth.ResumeTenant(request))

    async def delete_tenant(self, tenant: str, *, etag: str = "") -> auth_pb2.Tenant:
        """Deletes a tenant; until its expire_time it can be undeleted. For platform admins."""
        request = auth_pb2.DeleteTenantRequest(name=calls.tenant_name(tenant), etag=etag)
        return await calls.result(self._auth.DeleteTenant(request))

    async def undelete_tenant(self, tenant: str, *, etag: str = "") -> auth_pb2.Tenant:
        """Brings a deleted tenant back. For platform admins."""
        request = auth_pb2.UndeleteTenantRequest(name=calls.tenant_name(tenant), etag=etag)
        return await calls.result(self._auth.UndeleteTenant(request))

    async def create_key(
        self,
        *,
        tenant: str | None = None,
        display_name: str = "",
        roles: Sequence[access_pb2.Role.ValueType] = (),
        expire_time: datetime | None = None,
        methods: Sequence[str] = (),
        models: Sequence[str] = (),
    ) -> auth_pb2.Key:
        """Creates an API key, whose `secret` is shown this once.

        Args:
            tenant: Whose; the key's own tenant when None.
            display_name: What people call it.
            roles: What it may do; a caller's when empty.
            expire_time: When it stops working; never when None.
            methods: The only methods it may call, as package.Service/Method or package.Service/*; any when empty.
            models: The only models it may name, by name or id; any when empty.
        """
        parent = await self._parent(tenant)
        names = [name if "/" in name else f"{parent}/models/{name}" for name in models]
        key = auth_pb2.Key(display_name=display_name, roles=roles, methods=methods, models=names)
        if expire_time is not None:
            key.expire_time.FromDatetime(expire_time)
        return await calls.result(self._auth.CreateKey(auth_pb2.CreateKeyRequest(parent=parent, key=key)))

    async def rotate_key(self, key: str, *, overlap_s: float | None = None) -> auth_pb2.Key:
        """Gives a key a new `secret`, shown this once; the old one works for overlap_s more, a day when None."""
        request = auth_pb2.RotateKeyRequest(name=await self._name("keys", key))
        if overlap_s is not None:
            request.overlap.FromMicroseconds(int(overlap_s * 1e6))
        return await calls.result(self._auth.RotateKey(request))

    async def list_keys(self, *, tenant: str | None = None, limit: int | None = None) -> list[auth_pb2.Key]:
        """A tenant's keys, without their secrets."""
        request = auth_pb2.ListKeysRequest(parent=await self._parent(tenant))
        return await calls.pages(self._auth.ListKeys, request, "keys", limit)

    async def revoke_key(self, key: str) -> auth_pb2.Key:
        """Revokes a key: it can no longer be exchanged for tokens."""
        return await calls.result(self._auth.RevokeKey(auth_pb2.RevokeKeyRequest(name=await self._name("keys", key))))

    @abstractmethod
    async def _parent(self, tenant: str | None) -> str:
        """The tenant's resource name; the key's own tenant when None."""

    @abstractmethod
    async def _name(self, collection: str, name: str) -> str:
        """A whole resource name."""
