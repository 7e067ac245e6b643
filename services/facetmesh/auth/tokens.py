"""Tokens: JSON Web Tokens of a few minutes, after RFC 9068, signed with ES256."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import jwt

from facetmesh.auth.signing import ALGORITHM

if TYPE_CHECKING:
    from collections.abc import Callable

    from facetmesh.auth.grants import Grant
    from facetmesh.auth.signing import SigningKeys

_TYPE = "at+jwt"
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

    def issue(self, grant: Grant) -> tuple[str, int]:
        """A token for what a key gives right to, and when it expires, in seconds since the epoch."""
        at_s = self._clock() if grant.at_s is None else grant.at_s
        now = int(at_s)
        expires = now + self._lifetime_s
        if grant.expires_s is not None:
            expires = min(expires, int(grant.expires_s))
        claims: dict[str, object] = {
            "iss": self._issuer, "aud": self._audience, "sub": grant.subject, "iat": now, "exp": expires,
            "jti": secrets.token_hex(16), "roles": list(grant.roles),
            # `iat` has whole seconds, because gateways refuse others; a revocation needs to be finer.
            _ISSUED_US: int(at_s * 1e6),
        }  # fmt: skip
        if grant.tenant_id is not None:
            claims["tenant"] = f"tenants/{grant.tenant_id}"
        # Absent where there is no limit: most tokens stay small.
        claims |= {name: list(only) for name, only in (("methods", grant.methods), ("models", grant.models)) if only}
        key = self._keys.signing()
        return jwt.encode(claims, key.private, ALGORITHM, headers={"kid": key.kid, "typ": _TYPE}), expires

    async def jwks(self) -> str:
        """The JSON text of the JWK Set that verifies the tokens (RFC 7517)."""
        return self._keys.jwks()
