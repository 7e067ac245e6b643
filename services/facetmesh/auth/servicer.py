"""auth's gRPC face: protobuf in, domain call, protobuf out."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from google.protobuf.timestamp_pb2 import Timestamp

from facetmesh.auth.messages import (
    ROLES,
    changed_key,
    changed_tenant,
    key_message,
    key_spec,
    last,
    plan_message,
    tenant_message,
    tenant_spec,
)
from facetmesh.auth.onboarding import FIRST_KEY_ROLES
from facetmesh.auth.tokens import new_id, revoke
from facetmesh.auth.v1 import auth_pb2, auth_pb2_grpc
from facetmesh.kit import audit, identity
from facetmesh.kit.errors import NotFound
from facetmesh.kit.index import page
from facetmesh.kit.orders import OrderKind
from facetmesh.kit.tokens import order, order_message, revocation_message

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from facetmesh.auth.grants import Grants
    from facetmesh.auth.keys import Key, Keys
    from facetmesh.auth.onboarding import Onboarding
    from facetmesh.auth.orders import Orders
    from facetmesh.auth.plans import Plans
    from facetmesh.auth.revocations import RevocationLog
    from facetmesh.auth.tenants import Tenants
    from facetmesh.auth.tokens import TokenIssuer

_OVERLAP_S = 86_400.0
"""How long the old secret of a rotated key works, where nothing is asked for."""


@dataclass(frozen=True, slots=True)
class Auth:
    """What the servicer calls."""

    plans: Plans
    """What tenants are offered."""
    tenants: Tenants
    """The tenants."""
    keys: Keys
    """Their keys."""
    onboarding: Onboarding
    """Makes tenants with their first keys."""
    grants: Grants
    """Recognises keys."""
    issuer: TokenIssuer
    """Signs tokens."""
    revocations: RevocationLog
    """Whose tokens no longer count."""
    orders: Orders
    """What other services have still to do about tenants."""


class AuthServicer(auth_pb2_grpc.AuthServiceServicer):
    """Serves facetmesh.auth.v1.AuthService.

    Args:
        auth: What does the work.
    """

    def __init__(self, auth: Auth) -> None:
        self._plans = auth.plans
        self._tenants = auth.tenants
        self._keys = auth.keys
        self._onboarding = auth.onboarding
        self._grants = auth.grants
        self._issuer = auth.issuer
        self._revocations = auth.revocations
        self._orders = auth.orders

    async def CreateTenant(self, request: auth_pb2.CreateTenantRequest, _: Any) -> auth_pb2.Tenant:
        """Creates a tenant."""
        audit.current().concerns([f"tenants/{request.tenant_id}"])
        return tenant_message(
            await self._tenants.create(request.tenant_id, tenant_spec(request.tenant), request.request_id)
        )

    async def OnboardTenant(
        self, request: auth_pb2.OnboardTenantRequest, _: Any
    ) -> auth_pb2.OnboardTenantResponse:
        """Makes a tenant and its first key."""
        audit.current().concerns([f"tenants/{request.tenant_id}"])
        tenant, key, text = await self._onboarding.onboard(
            request.tenant_id, tenant_spec(request.tenant), key_spec(request.key, FIRST_KEY_ROLES), request.request_id
        )
        return auth_pb2.OnboardTenantResponse(tenant=tenant_message(tenant), key=_shown_once(key, text))

    async def ListPlans(self, request: auth_pb2.ListPlansRequest, _: Any) -> auth_pb2.ListPlansResponse:
        """Lists the plans."""
        ids, token = page(self._plans.ids, request.page_size, request.page_token)
        plans = [plan_message(plan_id, self._plans.get(plan_id)) for plan_id in ids]
        return auth_pb2.ListPlansResponse(plans=plans, next_page_token=token)

    async def GetTenant(self, request: auth_pb2.GetTenantRequest, _: Any) -> auth_pb2.Tenant:
        """Returns a tenant."""
        return tenant_message(await self._tenants.get(last(request.name)))

    async def ListTenants(self, request: auth_pb2.ListTenantsRequest, _: Any) -> auth_pb2.ListTenantsResponse:
        """Lists all tenants."""
        ids, token = page(await self._tenants.ids(), request.page_size, request.page_token)
        response = auth_pb2.ListTenantsResponse(next_page_token=token)
        read = self._tenants.get if request.show_deleted else self._tenants.present
        for tenant_id in ids:
            try:
                response.tenants.append(tenant_message(await read(tenant_id)))
            except NotFound:
                continue  # the index is a hint
        return response

    async def UpdateTenant(self, request: auth_pb2.UpdateTenantRequest, _: Any) -> auth_pb2.Tenant:
        """Changes a tenant."""
        wanted, mask = request.tenant, request.update_mask
        audit.current().concerns([wanted.name])
        return tenant_message(
            await self._tenants.update(
                last(wanted.name), lambda tenant: changed_tenant(tenant, wanted, mask), wanted.etag
            )
        )

    async def SuspendTenant(self, request: auth_pb2.SuspendTenantRequest, _: Any) -> auth_pb2.Tenant:
        """Shuts a tenant out."""
        return tenant_message(await self._tenants.suspend(last(request.name), request.etag))

    async def ResumeTenant(self, request: auth_pb2.ResumeTenantRequest, _: Any) -> auth_pb2.Tenant:
        """Lets a tenant in again."""
        return tenant_message(await self._tenants.resume(last(request.name), request.etag))

    async def DeleteTenant(self, request: auth_pb2.DeleteTenantRequest, _: Any) -> auth_pb2.Tenant:
        """Deletes a tenant."""
        return tenant_message(await self._tenants.delete(last(request.name), request.etag))

    async def UndeleteTenant(self, request: auth_pb2.UndeleteTenantRequest, _: Any) -> auth_pb2.Tenant:
        """Brings a deleted tenant back."""
        return tenant_message(await self._tenants.undelete(last(request.name), request.etag))

    async def RotateTenantKey(self, request: auth_pb2.RotateTenantKeyRequest, _: Any) -> auth_pb2.Tenant:
        """Gives a tenant a new encryption key."""
        rotate = functools.partial(self._orders.give, kind=OrderKind.ROTATE_KEY)
        return tenant_message(await self._tenants.rotate_key(last(request.name), rotate))

    async def CreateKey(self, request: auth_pb2.CreateKeyRequest, _: Any) -> auth_pb2.Key:
        """Creates a key."""
        return _shown_once(*await self._keys.create(last(request.parent), key_spec(request.key)))

    async def GetKey(self, request: auth_pb2.GetKeyRequest, _: Any) -> auth_pb2.Key:
        """Returns a key."""
        return key_message(await self._keys.get(*_key_ids(request.name)))

    async def UpdateKey(self, request: auth_pb2.UpdateKeyRequest, _: Any) -> auth_pb2.Key:
        """Changes a key."""
        wanted, mask = request.key, request.update_mask
        return key_message(
            await self._keys.update(*_key_ids(wanted.name), lambda key: changed_key(key, wanted, mask), wanted.etag)
        )

    async def ListKeys(self, request: auth_pb2.ListKeysRequest, _: Any) -> auth_pb2.ListKeysResponse:
        """Lists a tenant's keys."""
        tenant_id = last(request.parent)
        ids, token = page(await self._keys.ids(tenant_id), request.page_size, request.page_token)
        if not ids:
            await self._tenants.get(tenant_id)  # who misspells a tenant is not told that it has no keys
        response = auth_pb2.ListKeysResponse(next_page_token=token)
        for key_id in ids:
            try:
                response.keys.append(key_message(await self._keys.get(tenant_id, key_id)))
            except NotFound:
                continue  # the index is a hint
        return response

    async def RevokeKey(self, request: auth_pb2.RevokeKeyRequest, _: Any) -> auth_pb2.Key:
        """Revokes a key."""
        return key_message(await self._keys.revoke(*_key_ids(request.name)))

    async def RotateKey(self, request: auth_pb2.RotateKeyRequest, _: Any) -> auth_pb2.Key:
        """Gives a key a new secret."""
        overlap_s = request.overlap.ToMicroseconds() / 1e6 if request.HasField("overlap") else _OVERLAP_S
        return _shown_once(*await self._keys.rotate(*_key_ids(request.name), overlap_s))

    async def IssueToken(self, request: auth_pb2.IssueTokenRequest, _: Any) -> auth_pb2.IssueTokenResponse:
        """Exchanges a key for a token."""
        grant = await self._grants.grant(request.key, last(request.tenant) if request.tenant else None)
        tenant = f"tenants/{grant.tenant_id}" if grant.tenant_id else ""
        audit.current().identify(subject=grant.subject, tenant=tenant)
        token_id = new_id()
        token, expires_s = self._issuer.issue(grant, token_id=token_id, certificate=identity.certificate() or None)
        return auth_pb2.IssueTokenResponse(
            access_token=token, expire_time=Timestamp(seconds=expires_s), tenant=tenant,
            roles=[ROLES[role] for role in grant.roles], name=f"{tenant or 'tenants/platform'}/tokens/{token_id}",
        )

    async def RevokeToken(self, request: auth_pb2.RevokeTokenRequest, _: Any) -> auth_pb2.RevokeTokenResponse:
        """Revokes one token."""
        await revoke(identity.current(), request.name, self._revocations)
        return auth_pb2.RevokeTokenResponse(name=request.name)

    async def GetJwks(self, _: auth_pb2.GetJwksRequest, __: Any) -> auth_pb2.Jwks:
        """Returns the public keys."""
        return auth_pb2.Jwks(json=await self._issuer.jwks())

    async def WatchRevocations(
        self, request: auth_pb2.WatchRevocationsRequest, _: Any
    ) -> AsyncIterator[auth_pb2.WatchRevocationsResponse]:
        """Streams revocations."""
        service = last(identity.current().subject)
        async for news in self._revocations.revocations(request.after_sequence):
            yield auth_pb2.WatchRevocationsResponse(
                revocations=[revocation_message(one) for one in news.revocations], sequence=news.sequence,
                orders=[order_message(one) for one in await self._orders.pending(service)],
            )

    async def ConfirmTenantOrder(
        self, request: auth_pb2.ConfirmTenantOrderRequest, _: Any
    ) -> auth_pb2.ConfirmTenantOrderResponse:
        """Takes the confirmation of an order."""
        await self._orders.confirm(last(identity.current().subject), order(request.order))
        return auth_pb2.ConfirmTenantOrderResponse()


def _key_ids(name: str) -> tuple[str, str]:
    _, tenant_id, _, key_id = name.split("/")
    return tenant_id, key_id


def _shown_once(key: Key, text: str) -> auth_pb2.Key:
    answer = key_message(key, text)
    audit.current().describe(resource=answer.name)
    return answer
