"""Tokens: JSON Web Tokens of a few minutes, after RFC 9068, signed with ES256."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import jwt

from facetmesh.auth.signing import ALGORITHM
from facetmesh.kit.errors import PermissionDenied

if TYPE_CHECKING:
    from collections.abc import Callable

    from facetmesh.auth.grants import Grant
    from facetmesh.auth.revocations import RevocationLog
    from facetmesh.auth.signing import SigningKeys
    from facetmesh.kit.identity import Principal

_TYPE = "at+jwt"
_MOST_REVOKED = 100
"""Tokens of one tenant that can be revoked one by one within an hour: every service holds each of them."""
_ISSUED_US = "iat_us"


class TokenIssuer:
    """Signs tokens, and publishes the keys that verify them.

    Args:
        keys: The keys that sign.
        issuer: The `iss` of tokens.
        audience: The `aud` of tokens.
        lifetime_s: How long a token works, in seconds.
        clock: Seconds since the epoch.
    """

    def __init__(
        self, keys: SigningKeys, *, issuer: str, audience: str, lifetime_s: int, clock: Callable[[], float]
    ) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._lifetime_s = lifetime_s
        self._clock = clock

    def issue(self, grant: Grant, *, token_id: str | None = None, certificate: str | None = None) -> tuple[str, int]:
        """A token for what a key gives right to, and when it expires, in seconds since the epoch.

        Args:
            grant: What the key gives right to.
            token_id: Its `jti`, from `new_id`; a new one when None.
            certificate: The SHA-256 thumbprint of the client certificate without which the token is worth nothing
                (RFC 8705), in base64url; None for any bearer.
        """
        at_s = self._clock() if grant.at_s is None else grant.at_s
        now = int(at_s)
        expires = now + self._lifetime_s
        if grant.expires_s is not None:
            expires = min(expires, int(grant.expires_s))
        claims: dict[str, object] = {
            "iss": self._issuer, "aud": self._audience, "sub": grant.subject, "iat": now, "exp": expires,
            "jti": token_id or new_id(), "roles": list(grant.roles),
            # `iat` has whole seconds, because gateways refuse others; a revocation needs to be finer.
            _ISSUED_US: int(at_s * 1e6),
        }  # fmt: skip
        if grant.tenant_id is not None:
            claims["tenant"] = f"tenants/{grant.tenant_id}"
        if grant.region:
            claims["region"] = grant.region
        if certificate is not None:
            claims["cnf"] = {"x5t#S256": certificate}
        # Absent where there is no limit: most tokens stay small.
        claims |= {name: list(only) for name, only in (("methods", grant.methods), ("models", grant.models)) if only}
        key = self._keys.signing()
        return jwt.encode(claims, key.private, ALGORITHM, headers={"kid": key.kid, "typ": _TYPE}), expires

    async def jwks(self) -> str:
        """The JSON text of the JWK Set that verifies the tokens (RFC 7517)."""
        return self._keys.jwks()


def new_id() -> str:
    """A token's id, which is its `jti`."""
    return secrets.token_hex(16)


async def revoke(principal: Principal, name: str, revocations: RevocationLog) -> None:
    """Revokes one token, whether there is such a token or not.

    Args:
        principal: Who asks, in whose tenant the name lies.
        name: tenants/{tenant}/tokens/{token}.
        revocations: Takes it in.

    Raises:
        PermissionDenied: TOKEN_NOT_YOURS: who is no admin asks for another's.
        ResourceExhausted: TOO_MANY_REVOKED.
    """
    parent, _, token_id = name.rpartition("/")
    if principal.roles.isdisjoint({"platform-admin", "tenant-admin"}) and token_id != principal.token_id:
        raise PermissionDenied("Only the token's holder and admins may revoke it.", reason="TOKEN_NOT_YOURS")
    await revocations.add(name, most=(f"{parent}/", _MOST_REVOKED))
