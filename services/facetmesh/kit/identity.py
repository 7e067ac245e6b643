"""Who calls, and what he may call."""

from __future__ import annotations

import hmac
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from facetmesh.access.v1 import access_pb2
from facetmesh.kit.errors import PermissionDenied, Unauthenticated

if TYPE_CHECKING:
    from collections.abc import Mapping

ROLE_NAMES: Mapping[access_pb2.Role.ValueType, str] = {
    access_pb2.ROLE_PLATFORM_ADMIN: "platform-admin",
    access_pb2.ROLE_TENANT_ADMIN: "tenant-admin",
    access_pb2.ROLE_CALLER: "caller",
    access_pb2.ROLE_AUDITOR: "auditor",
    access_pb2.ROLE_SERVICE: "service",
    access_pb2.ROLE_OPERATOR: "operator",
}
"""How the roles are written in tokens."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is behind a call."""

    subject: str
    """tenants/{tenant}/keys/{key}, services/{service} or platform/admin."""
    tenant: str | None
    """tenants/{tenant}; None for those who belong to no tenant."""
    roles: frozenset[str]
    """Names as in ROLE_NAMES."""
    methods: frozenset[str] = frozenset()
    """The only methods it may call, as package.Service/Method or package.Service/*; any when empty."""
    models: frozenset[str] = frozenset()
    """The only models it may name; any when empty."""
    region: str = ""
    """Where its tenant is served; anywhere when empty."""
    token_id: str = ""
    """The token's `jti`."""
    certificate: str = ""
    """The thumbprint of the client certificate that the token is bound to; "" for none."""
    token: str = field(default="", repr=False)
    """The token itself."""
    works_for: str = ""
    """The key for whose call a service makes this one; "" where it says of none."""

    @property
    def is_platform_admin(self) -> bool:
        """Whether it may act in every tenant."""
        return self.tenant is None and "platform-admin" in self.roles

    @property
    def token_name(self) -> str:
        """The resource name of its token, by which that is revoked."""
        return f"{self.tenant or 'tenants/platform'}/tokens/{self.token_id}"


FOR_HEADER = "x-facetmesh-for"
"""In which a service says for which key's call it makes this one."""
_current: ContextVar[Principal | None] = ContextVar("principal", default=None)


def current() -> Principal:
    """The caller of the current RPC.

    Raises:
        Unauthenticated: The method is public and no token came.
    """
    principal = _current.get()
    if principal is None:
        raise Unauthenticated("A token is required.", reason="TOKEN_MISSING")
    return principal


def subject() -> str:
    """The subject of the current RPC's caller; "" outside of one, and where no token came."""
    principal = _current.get()
    return principal.subject if principal else ""


def charged_subject() -> str:
    """Whose limits the work of the current RPC counts for, beside the tenant's: the key that caused it."""
    principal = _current.get()
    return (principal.works_for or principal.subject) if principal else ""


def working_for(principal: Principal, key: str) -> Principal:
    """The principal with what it says of whom it works for: a service is believed, of its tenant's keys."""
    if key and "service" in principal.roles and principal.tenant and key.startswith(f"{principal.tenant}/keys/"):
        return replace(principal, works_for=key)
    return principal


def set_current(principal: Principal | None) -> None:
    """Makes principal the caller for the rest of this task."""
    _current.set(principal)


_certificate: ContextVar[str] = ContextVar("certificate", default="")


def certificate() -> str:
    """The SHA-256 thumbprint of the client certificate of who called the current RPC, in base64url; "" for none."""
    return _certificate.get()


def set_certificate(thumbprint: str) -> None:
    """Makes a certificate the caller's for the rest of this task."""
    _certificate.set(thumbprint)


def confirm(principal: Principal) -> None:
    """Returns when the caller has the certificate that the token is bound to, if it is bound.

    Raises:
        Unauthenticated: TOKEN_BOUND: the token may be stolen.
    """
    if principal.certificate and not hmac.compare_digest(principal.certificate, certificate()):
        raise Unauthenticated("The token works only with its holder's client certificate.", reason="TOKEN_BOUND")


def authorize(principal: Principal, roles: frozenset[str], method: str) -> None:
    """Returns when principal has one of roles, and may call the method.

    Raises:
        PermissionDenied: It has none, or its key is limited to other methods.
    """
    if principal.roles.isdisjoint(roles):
        raise PermissionDenied("Your token's roles do not allow this.", reason="ROLE_MISSING")
    if principal.methods and principal.methods.isdisjoint({method, f"{method.partition('/')[0]}/*"}):
        raise PermissionDenied("Your key is limited to other methods.", reason="SCOPE_MISSING")
