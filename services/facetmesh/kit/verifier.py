"""Tokens, verified where they arrive, without asking anybody.

RFC 8725's list: one algorithm and no other (ES256), the key chosen by `kid` from
auth's set alone, `typ`, `iss`, `aud`, `exp` and `iat` required and checked, a cap
on size before anything is parsed.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Protocol

import jwt
from jwt.utils import base64url_decode

from facetmesh.kit.errors import FacetmeshError, Unauthenticated, Unavailable
from facetmesh.kit.identity import Principal
from facetmesh.kit.revocations import Revocations

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from facetmesh.kit.revocations import Revocation

ALGORITHM = "ES256"
TOKEN_TYPE = "at+jwt"  # noqa: S105 - RFC 9068's name of the type
ISSUED_US = "iat_us"
"""The claim of when a token counts from, in microseconds since the epoch: what revocations go by."""
MAX_TOKEN_BYTES = 4096
CLOCK_SKEW_S = 30
MAX_AHEAD_S = 600
"""How far auth's clock may be ahead of ours. A token from the future works no longer for it: only `exp` ends it."""
_CACHED_TOKENS = 4096
_KNOWN_HEADERS = 64
_HEADER = {"alg", "kid", "typ"}
_THUMBPRINT = "x5t#S256"
"""The member of `cnf` that binds a token to a client certificate (RFC 8705)."""
_KID = re.compile(r"[A-Za-z0-9_-]{1,64}")
KEYS_REFRESH_S = 60.0
"""How often the keys are fetched again, so that one that was withdrawn is not trusted for ever."""
_MIN_REFRESH_S = 5.0
"""How often an unknown `kid` may make us ask auth: a flood of forged tokens must not become one of calls."""


class KeySource(Protocol):
    """Where the public keys come from."""

    async def jwks(self) -> str:
        """The JSON text of auth's JWK Set."""
        ...


class TokenVerifier:
    """Verifies tokens with auth's public keys, which it fetches once and when an unknown key appears.

    Args:
        source: Where the keys come from.
        issuer: The `iss` that tokens must have.
        audience: The `aud` that tokens must have.
        clock: Seconds since the epoch.
    """

    def __init__(
        self, source: KeySource, *, issuer: str, audience: str, clock: Callable[[], float] = time.time
    ) -> None:
        self._source = source
        self._issuer = issuer
        self._audience = audience
        self._clock = clock
        self._keys: dict[str, jwt.PyJWK] = {}
        self._headers: dict[str, jwt.PyJWK] = {}
        self._asked_at = float("-inf")
        self._asking = asyncio.Lock()
        self._verified: OrderedDict[bytes, tuple[float, Principal]] = OrderedDict()
        self._revocations = Revocations()

    async def ready(self) -> None:
        """Returns once keys are there. They are kept when auth goes away.

        Raises:
            Unavailable: None could be had yet.
        """
        if not self._keys:
            await self._refresh()
        if not self._keys:
            raise Unavailable("The token keys are not here yet.", reason="AUTH_UNREACHABLE", retry_after_s=1)

    def hear(self, revocations: Sequence[Revocation]) -> None:
        """Refuses the tokens that these cover, from now on."""
        self._revocations.add(revocations, self._clock())
        self._verified.clear()  # it is rare, and a cached token need not be looked up each time

    async def keep_fresh(self) -> None:
        """Fetches the keys again and again, for ever. Those that are here are kept while auth is away."""
        while True:
            await asyncio.sleep(KEYS_REFRESH_S)
            await self._refresh()

    async def verify(self, token: str) -> Principal:
        """Who the token stands for.

        Raises:
            Unauthenticated: The token does not hold, with a reason that names the check.
            Unavailable: There are no keys yet to check it with.
        """
        if len(token) > MAX_TOKEN_BYTES:
            raise Unauthenticated("The token is too large.", reason="TOKEN_INVALID")
        fingerprint = hashlib.sha256(token.encode()).digest()
        cached = self._verified.get(fingerprint)
        if cached is not None:
            if self._clock() < cached[0]:
                self._verified.move_to_end(fingerprint)
                return cached[1]
            del self._verified[fingerprint]
        claims = self._claims(token, await self._key(token))
        principal = Principal(
            claims["sub"], claims.get("tenant"), frozenset(claims["roles"]), frozenset(claims.get("methods", ())),
            frozenset(claims.get("models", ())), claims.get("region", ""), claims["jti"],
            claims.get("cnf", {}).get(_THUMBPRINT, ""), token,
        )
        names = (principal.subject, principal.tenant, principal.token_name)
        if self._revocations.cover(claims[ISSUED_US] / 1e6, *names):
            raise Unauthenticated("The token was revoked: exchange the key again.", reason="TOKEN_REVOKED")
        self._verified[fingerprint] = (float(claims["exp"]) + CLOCK_SKEW_S, principal)
        if len(self._verified) > _CACHED_TOKENS:
            self._verified.popitem(last=False)
        return principal

    async def _key(self, token: str) -> jwt.PyJWK:
        text = token.partition(".")[0]
        seen = self._headers.get(text)  # all tokens of a key begin alike: reading that again would cost a quarter
        if seen is not None:
            return seen
        try:
            header = jwt.get_unverified_header(token)
        except jwt.InvalidTokenError:
            raise Unauthenticated("The token is not a JSON Web Token.", reason="TOKEN_INVALID") from None
        kid = header.get("kid")
        if header.get("alg") != ALGORITHM or header.get("typ") != TOKEN_TYPE:
            raise Unauthenticated("The token's type or algorithm is not ours.", reason="TOKEN_INVALID")
        if header.keys() != _HEADER:  # such as `crit`, which must not be passed over
            raise Unauthenticated("The token's header is not ours.", reason="TOKEN_INVALID")
        if not isinstance(kid, str) or not _KID.fullmatch(kid):
            raise Unauthenticated("The token names no key.", reason="TOKEN_INVALID")
        known = kid in self._keys or await self._refresh()
        key = self._keys.get(kid)
        if key is None and not (known and self._keys):  # it may be a new one, of which auth cannot tell us now
            raise Unavailable("The token cannot be checked now.", reason="AUTH_UNREACHABLE", retry_after_s=1)
        if key is None:
            raise Unauthenticated("The token was signed with an unknown key.", reason="TOKEN_INVALID")
        if len(self._headers) >= _KNOWN_HEADERS:
            self._headers.clear()
        self._headers[text] = key
        return key

    def _claims(self, token: str, key: jwt.PyJWK) -> dict[str, Any]:
        claims = _signed(token, key)
        audiences = claims.get("aud")
        if not isinstance(audiences, list):
            audiences = [audiences]
        if claims.get("iss") != self._issuer or self._audience not in audiences:
            raise Unauthenticated("The token does not hold.", reason="TOKEN_INVALID")
        now = self._clock()
        expires, issued = claims.get("exp", ""), claims.get("iat", "")
        if not all(isinstance(t, int | float) for t in (expires, issued)) or issued > now + MAX_AHEAD_S:
            raise Unauthenticated("The token does not hold.", reason="TOKEN_INVALID")
        if now >= expires + CLOCK_SKEW_S:
            raise Unauthenticated("The token has expired: exchange the key again.", reason="TOKEN_EXPIRED")
        tenant = claims.get("tenant")
        lists = (claims.get("roles"), claims.get("methods", []), claims.get("models", []))
        if not all(isinstance(names, list) and all(isinstance(name, str) for name in names) for names in lists):
            raise Unauthenticated("The token does not hold.", reason="TOKEN_INVALID")
        if not isinstance(tenant, str | None) or type(claims.get(ISSUED_US)) is not int:
            raise Unauthenticated("The token does not hold.", reason="TOKEN_INVALID")
        # A confirmation that we cannot check must not be passed over (RFC 7800, 3.1).
        confirmation = claims.get("cnf", {_THUMBPRINT: ""})
        if not isinstance(confirmation, dict) or not isinstance(confirmation.get(_THUMBPRINT), str):
            raise Unauthenticated("The token does not hold.", reason="TOKEN_INVALID")
        if not isinstance(claims.get("jti"), str) or not isinstance(claims.get("sub"), str):
            raise Unauthenticated("The token does not hold.", reason="TOKEN_INVALID")
        if not isinstance(claims.get("region", ""), str):
            raise Unauthenticated("The token does not hold.", reason="TOKEN_INVALID")
        return claims

    async def _refresh(self) -> bool:
        """Whether the keys are those that auth has, or had a moment ago."""
        async with self._asking:
            if time.monotonic() - self._asked_at < _MIN_REFRESH_S and self._keys:
                return True
            try:
                text = await self._source.jwks()
            except FacetmeshError:
                return False  # what we have stays good
            self._asked_at = time.monotonic()
            keys = {k["kid"]: jwt.PyJWK(k, algorithm=ALGORITHM) for k in json.loads(text)["keys"]}
            self._headers.clear()
            if keys.keys() != self._keys.keys():
                self._verified.clear()  # a key that was withdrawn takes its tokens along
            self._keys = keys
            return True


def _signed(token: str, key: jwt.PyJWK) -> dict[str, Any]:
    """What a token says whose header was checked, if its signature holds.

    PyJWT's own decoding would read the header again, and check times by another
    clock: together half of what the signature costs.
    """
    signed, _, signature = token.rpartition(".")
    try:
        if not key.Algorithm.verify(signed.encode(), key.key, base64url_decode(signature)):
            raise Unauthenticated("The token does not hold.", reason="TOKEN_INVALID")
        claims = json.loads(base64url_decode(signed.partition(".")[2]))
    except ValueError:
        claims = None
    if not isinstance(claims, dict):
        raise Unauthenticated("The token does not hold.", reason="TOKEN_INVALID")
    return claims
