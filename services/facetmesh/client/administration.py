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
        self,
        tenant_id: str,
        *,
        display_name: str = "",
        licence_classes: Sequence[str] = (),
        tenant: auth_pb2.Tenant | None = None,
    ) -> auth_pb2.Tenant:
        """Creates a tenant. For platform admins.

        Args:
            tenant_id: Its id.
            display_name: What people call it.
            licence_classes: What its models' licences may ask for: permissive, copyleft, non-commercial; permissive
                ones only when empty.
            tenant: All else that it shall have, such as its plan and limits.
        """
        wanted = auth_pb2.Tenant(display_name=display_name)
        if tenant is not None:
            wanted.MergeFrom(tenant)
        wanted.licence_policy.classes.extend(
            calls.enum_value(auth_pb2.LicenceClass, "LICENCE_CLASS", name) for name in licence_classes
        )
        request = auth_pb2.CreateTenantRequest(tenant_id=tenant_id, tenant=wanted, request_id=str(uuid.uuid4()))
        return await calls.result(self._auth.CreateTenant(request))

    async def onboard_tenant(
        self,
        tenant_id: str,
        *,
        tenant: auth_pb2.Tenant | None = None,
        key: auth_pb2.Key | None = None,
        request_id: str | None = None,
    ) -> auth_pb2.OnboardTenantResponse:
        """Makes a tenant and its first key, whose `secret` is in the answer. For platform admins.

        Args:
            tenant_id: Its id.
            tenant: What it shall have.
            key: What the key shall be; a tenant admin's, caller's and auditor's in one when None.
            request_id: A UUID by which a repeat of a call that was cut short is recognised; a new one when None.
        """
        request = auth_pb2.OnboardTenantRequest(
            tenant_id=tenant_id, tenant=tenant, key=key, request_id=request_id or str(uuid.uuid4()),
        )
        return await calls.result(self._auth.OnboardTenant(request))

    async def list_plans(self, *, limit: int | None = None) -> list[auth_pb2.Plan]:
        """The plans, in the order of their ids. For platform admins."""
        return await calls.pages(self._auth.ListPlans, auth_pb2.ListPlansRequest(), "plans", limit)

    async def get_tenant(self, tenant: str) -> auth_pb2.Tenant:
        """Returns a tenant."""
        return await calls.result(self._auth.GetTenant(auth_pb2.GetTenantRequest(name=calls.tenant_name(tenant))))

    async def list_tenants(self, *, limit: int | None = None, show_deleted: bool = False) -> list[auth_pb2.Tenant]:
        """The tenants, in the order of their ids; all when limit is None. For platform admins."""
        request = auth_pb2.ListTenantsRequest(show_deleted=show_deleted)
        return await calls.pages(self._auth.ListTenants, request, "tenants", limit)

    async def update_tenant(
        self,
        tenant: str,
        *,
        display_name: str | None = None,
        changes: auth_pb2.Tenant | None = None,
        fields: Sequence[str] = (),
        etag: str = "",
    ) -> auth_pb2.Tenant:
        """Changes a tenant. For platform admins.

        Args:
            tenant: Which.
            display_name: What people call it; as it was when None.
            changes: What else it shall have.
            fields: The fields of `changes` to take, such as limits.models; those that are set when empty.
            etag: The change is made only if it still has this one; whatever it has when empty.
        """
        wanted = auth_pb2.Tenant()
        if changes is not None:
            wanted.CopyFrom(changes)
        wanted.name, wanted.etag = calls.tenant_name(tenant), etag
        paths = list(fields) or [field.name for field, _ in (changes or auth_pb2.Tenant()).ListFields()]
        if display_name is not None:
            wanted.display_name = display_name
            paths.append("display_name")
        request = auth_pb2.UpdateTenantRequest(tenant=wanted)
        request.update_mask.paths.extend(paths)
        return await calls.result(self._auth.UpdateTenant(request))

    async def rotate_tenant_key(self, tenant: str | None = None) -> auth_pb2.Tenant:
        """Gives a tenant a new key for what is encrypted from now on; the key's own tenant when None."""
        request = auth_pb2.RotateTenantKeyRequest(name=await self._parent(tenant))
        return await calls.result(self._auth.RotateTenantKey(request))

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

    async def update_key(
        self, key: str, *, display_name: str | None = None, limits: auth_pb2.Limits | None = None
    ) -> auth_pb2.Key:
        """Changes what people call a key, or what it may take of what its tenant may; what is None stays."""
        wanted = auth_pb2.Key(name=await self._name("keys", key), display_name=display_name or "", limits=limits)
        request = auth_pb2.UpdateKeyRequest(key=wanted)
        given = {"display_name": display_name, "limits": limits}
        request.update_mask.paths.extend(name for name, value in given.items() if value is not None)
        return await calls.result(self._auth.UpdateKey(request))

    async def revoke_token(self, token: str) -> None:
        """Revokes one token, by its name or its `jti`; its key's others go on."""
        request = auth_pb2.RevokeTokenRequest(name=await self._name("tokens", token))
        await calls.result(self._auth.RevokeToken(request))

    async def revoke_key(self, key: str) -> auth_pb2.Key:
        """Revokes a key: it can no longer be exchanged for tokens."""
        return await calls.result(self._auth.RevokeKey(auth_pb2.RevokeKeyRequest(name=await self._name("keys", key))))

    @abstractmethod
    async def _parent(self, tenant: str | None) -> str:
        """The tenant's resource name; the key's own tenant when None."""

    @abstractmethod
    async def _name(self, collection: str, name: str) -> str:
        """A whole resource name."""
