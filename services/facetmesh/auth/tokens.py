"""Tokens: JSON Web Tokens of a few minutes, after RFC 9068, signed with ES256."""

from __future__ import annotations

import hashlib
import json
import secrets
from typing import TYPE_CHECKING

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from jwt.algorithms import ECAlgorithm
from jwt.utils import base64url_encode

from facetmesh.kit.errors import FailedPrecondition

if TYPE_CHECKING:
    from collections.abc import Callable

    from facetmesh.auth.keys import Grant

_ALGORITHM = "ES256"
_TYPE = "at+jwt"


class TokenIssuer:
    """Signs tokens, and publishes the key that verifies them.

    Args:
        pem: The private key: PKCS #8 PEM, curve P-256.
        issuer: The `iss` of tokens.
        audience: The `aud` of tokens.
        lifetime_s: How long a token works, in seconds.
        clock: Seconds since the epoch.

    Raises:
        FailedPrecondition: The key is none of that kind.
    """

    def __init__(
        self, pem: bytes, *, issuer: str, audience: str, lifetime_s: int, clock: Callable[[], float]
    ) -> None:
        try:
            key = load_pem_private_key(pem, password=None)
        except (ValueError, TypeError):
            key = None
        if not isinstance(key, EllipticCurvePrivateKey) or not isinstance(key.curve, SECP256R1):
            raise FailedPrecondition("The secret token-signing-key is no P-256 key in PEM.", reason="SECRET_INVALID")
        self._key = key
        self._issuer = issuer
        self._audience = audience
        self._lifetime_s = lifetime_s
        self._clock = clock
        public = ECAlgorithm(ECAlgorithm.SHA256).to_jwk(key.public_key(), as_dict=True)
        # RFC 7638: the thumbprint hashes the required members in this order.
        members = json.dumps({name: public[name] for name in ("crv", "kty", "x", "y")}, separators=(",", ":"))
        self._kid = base64url_encode(hashlib.sha256(members.encode()).digest()).decode()
        self._jwks = json.dumps({"keys": [{**public, "kid": self._kid, "alg": _ALGORITHM, "use": "sig"}]})

    def issue(self, grant: Grant) -> tuple[str, int]:
        """A token for what a key gives right to, and when it expires, in seconds since the epoch."""
        now = int(self._clock() if grant.at_s is None else grant.at_s)
        expires = now + self._lifetime_s
        if grant.expires_s is not None:
            expires = min(expires, int(grant.expires_s))
        claims: dict[str, object] = {
            "iss": self._issuer, "aud": self._audience, "sub": grant.subject, "iat": now, "exp": expires,
            "jti": secrets.token_hex(16), "roles": list(grant.roles),
        }  # fmt: skip
        if grant.tenant_id is not None:
            claims["tenant"] = f"tenants/{grant.tenant_id}"
        # Absent where there is no limit: most tokens stay small.
        claims |= {name: list(only) for name, only in (("methods", grant.methods), ("models", grant.models)) if only}
        return jwt.encode(claims, self._key, _ALGORITHM, headers={"kid": self._kid, "typ": _TYPE}), expires

    async def jwks(self) -> str:
        """The JSON text of the JWK Set that verifies the tokens (RFC 7517)."""
        return self._jwks
