"""auth's gRPC face: protobuf in, domain call, protobuf out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf.timestamp_pb2 import Timestamp

from facetmesh.auth.keys import KeySpec
from facetmesh.auth.tenants import TenantState
from facetmesh.auth.v1 import auth_pb2, auth_pb2_grpc
from facetmesh.kit import audit
from facetmesh.kit.errors import NotFound
from facetmesh.kit.identity import ROLE_NAMES
from facetmesh.kit.index import page
from facetmesh.kit.tokens import revocation_message

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from facetmesh.auth.keys import Key, Keys
    from facetmesh.auth.revocations import RevocationLog
    from facetmesh.auth.tenants import Tenant, Tenants
    from facetmesh.auth.tokens import TokenIssuer

_ROLES = {name: number for number, name in ROLE_NAMES.items()}
_OVERLAP_S = 86_400.0
"""How long the old secret of a rotated key works, where nothing is asked for."""
_STATES = {
    TenantState.ACTIVE: auth_pb2.Tenant.STATE_ACTIVE, TenantState.SUSPENDED: auth_pb2.Tenant.STATE_SUSPENDED,
    TenantState.DELETED: auth_pb2.Tenant.STATE_DELETED,
}


class AuthServicer(auth_pb2_grpc.AuthServiceServicer):
    """Serves facetmesh.auth.v1.AuthService.

    Args:
        tenants: The tenants.
        keys: Their keys.
        issuer: Signs tokens.
        revocations: Whose tokens no longer count.
    """

    def __init__(self, tenants: Tenants, keys: Keys, issuer: TokenIssuer, revocations: RevocationLog) -> None:
        self._tenants = tenants
        self._keys = keys
        self._issuer = issuer
        self._revocations = revocations

    async def CreateTenant(self, request: auth_pb2.CreateTenantRequest, _: Any) -> auth_pb2.Tenant:
        """Creates a tenant."""
        audit.current().concerns([f"tenants/{request.tenant_id}"])
        tenant = await self._tenants.create(request.tenant_id, request.tenant.display_name, request.request_id)
        return _tenant(tenant)

    async def GetTenant(self, request: auth_pb2.GetTenantRequest, _: Any) -> auth_pb2.Tenant:
        """Returns a tenant."""
        return _tenant(await self._tenants.get(_last(request.name)))

    async def ListTenants(self, request: auth_pb2.ListTenantsRequest, _: Any) -> auth_pb2.ListTenantsResponse:
        """Lists all tenants."""
        ids, token = page(await self._tenants.ids(), request.page_size, request.page_token)
        response = auth_pb2.ListTenantsResponse(next_page_token=token)
        read = self._tenants.get if request.show_deleted else self._tenants.present
        for tenant_id in ids:
            try:
                response.tenants.append(_tenant(await read(tenant_id)))
            except NotFound:
                continue  # the index is a hint
        return response

    async def UpdateTenant(self, request: auth_pb2.UpdateTenantRequest, _: Any) -> auth_pb2.Tenant:
        """Changes a tenant."""
        wanted = request.tenant
        audit.current().concerns([wanted.name])
        if not (wanted.display_name or request.update_mask.paths):
            return _tenant(await self._tenants.present(_last(wanted.name)))
        return _tenant(await self._tenants.rename(_last(wanted.name), wanted.display_name, wanted.etag))

    async def SuspendTenant(self, request: auth_pb2.SuspendTenantRequest, _: Any) -> auth_pb2.Tenant:
        """Shuts a tenant out."""
        return _tenant(await self._tenants.suspend(_last(request.name), request.etag))

    async def ResumeTenant(self, request: auth_pb2.ResumeTenantRequest, _: Any) -> auth_pb2.Tenant:
        """Lets a tenant in again."""
        return _tenant(await self._tenants.resume(_last(request.name), request.etag))

    async def DeleteTenant(self, request: auth_pb2.DeleteTenantRequest, _: Any) -> auth_pb2.Tenant:
        """Deletes a tenant."""
        return _tenant(await self._tenants.delete(_last(request.name), request.etag))

    async def UndeleteTenant(self, request: auth_pb2.UndeleteTenantRequest, _: Any) -> auth_pb2.Tenant:
        """Brings a deleted tenant back."""
        return _tenant(await self._tenants.undelete(_last(request.name), request.etag))

    async def CreateKey(self, request: auth_pb2.CreateKeyRequest, _: Any) -> auth_pb2.Key:
        """Creates a key."""
        key, text = await self._keys.create(_last(request.parent), _spec(request.key))
        return _shown_once(key, text)

    async def ListKeys(self, request: auth_pb2.ListKeysRequest, _: Any) -> auth_pb2.ListKeysResponse:
        """Lists a tenant's keys."""
        tenant_id = _last(request.parent)
        ids, token = page(await self._keys.ids(tenant_id), request.page_size, request.page_token)
        response = auth_pb2.ListKeysResponse(next_page_token=token)
        for key_id in ids:
            try:
                response.keys.append(_key(await self._keys.get(tenant_id, key_id)))
            except NotFound:
                continue  # the index is a hint
        return response

    async def RevokeKey(self, request: auth_pb2.RevokeKeyRequest, _: Any) -> auth_pb2.Key:
        """Revokes a key."""
        _, tenant_id, _, key_id = request.name.split("/")
        return _key(await self._keys.revoke(tenant_id, key_id))

    async def RotateKey(self, request: auth_pb2.RotateKeyRequest, _: Any) -> auth_pb2.Key:
        """Gives a key a new secret."""
        _, tenant_id, _, key_id = request.name.split("/")
        overlap_s = request.overlap.ToMicroseconds() / 1e6 if request.HasField("overlap") else _OVERLAP_S
        return _shown_once(*await self._keys.rotate(tenant_id, key_id, overlap_s))

    async def IssueToken(self, request: auth_pb2.IssueTokenRequest, _: Any) -> auth_pb2.IssueTokenResponse:
        """Exchanges a key for a token."""
        grant = await self._keys.grant(request.key, _last(request.tenant) if request.tenant else None)
        tenant = f"tenants/{grant.tenant_id}" if grant.tenant_id else ""
        audit.current().identify(subject=grant.subject, tenant=tenant)
        token, expires_s = self._issuer.issue(grant)
        return auth_pb2.IssueTokenResponse(
            access_token=token, expire_time=Timestamp(seconds=expires_s), tenant=tenant,
            roles=[_ROLES[role] for role in grant.roles],
        )

    async def GetJwks(self, _: auth_pb2.GetJwksRequest, __: Any) -> auth_pb2.Jwks:
        """Returns the public keys."""
        return auth_pb2.Jwks(json=await self._issuer.jwks())

    async def WatchRevocations(
        self, request: auth_pb2.WatchRevocationsRequest, _: Any
    ) -> AsyncIterator[auth_pb2.WatchRevocationsResponse]:
        """Streams revocations."""
        async for news in self._revocations.revocations(request.after_sequence):
            yield auth_pb2.WatchRevocationsResponse(
                revocations=[revocation_message(one) for one in news.revocations], sequence=news.sequence
            )


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def _time(seconds: float | None) -> Timestamp | None:
    if seconds is None:
        return None
    time = Timestamp()
    time.FromMicroseconds(int(seconds * 1e6))
    return time


def _tenant(tenant: Tenant) -> auth_pb2.Tenant:
    return auth_pb2.Tenant(
        name=f"tenants/{tenant.id}", display_name=tenant.display_name, create_time=_time(tenant.created_s),
        etag=tenant.etag, state=_STATES[tenant.state], delete_time=_time(tenant.deleted_s),
        expire_time=_time(tenant.expires_s),
    )


def _key(key: Key) -> auth_pb2.Key:
    return auth_pb2.Key(
        name=f"tenants/{key.tenant_id}/keys/{key.id}", display_name=key.display_name,
        roles=[_ROLES[role] for role in key.roles], create_time=_time(key.created_s),
        revoke_time=_time(key.revoked_s), expire_time=_time(key.expires_s), last_use_time=_time(key.used_s),
        methods=key.methods, models=key.models, overlap_expire_time=_time(key.old_until_s or None),
    )


def _shown_once(key: Key, text: str) -> auth_pb2.Key:
    answer = _key(key)
    answer.secret = text
    audit.current().describe(resource=answer.name)
    return answer


def _spec(key: auth_pb2.Key) -> KeySpec:
    return KeySpec(
        key.display_name, tuple(ROLE_NAMES[role] for role in key.roles) or ("caller",),
        key.expire_time.ToMicroseconds() / 1e6 if key.HasField("expire_time") else None,
        tuple(key.methods), tuple(key.models),
    )
