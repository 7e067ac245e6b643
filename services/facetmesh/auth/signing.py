"""The keys that sign tokens: several may be published while one signs, so that they change without a gap."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from jwt.algorithms import ECAlgorithm
from jwt.utils import base64url_encode

from facetmesh.kit.errors import FacetmeshError, FailedPrecondition

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

ALGORITHM = "ES256"
_PEM = re.compile(r"-----BEGIN [^-]+-----.+?-----END [^-]+-----", re.DOTALL)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key that signs."""

    kid: str
    """The thumbprint of its public part (RFC 7638)."""
    private: EllipticCurvePrivateKey
    public: Mapping[str, str]
    """Its public part as a JSON Web Key."""


class SigningKeys:
    """The keys of the secret store.

    The first is the one that shall sign. One that comes while another signs is
    published first, until every verifier must have seen it. A key that is no longer
    among them signs nothing more, and its tokens end as verifiers look again.

    Args:
        text: One or more private keys: PKCS #8 PEM, curve P-256, one after the other.
        clock: Seconds since the epoch.
        lead_s: How long a new key is published before it signs, in seconds.

    Raises:
        FailedPrecondition: One is no key of that kind.
    """

    def __init__(self, text: str, clock: Callable[[], float], *, lead_s: float) -> None:
        self._clock = clock
        self._lead_s = lead_s
        self._keys = _parsed(text)
        self._signing = self._keys[0]
        self._changes_s = 0.0

    def use(self, text: str) -> None:
        """Goes over to these keys.

        Raises:
            FailedPrecondition: One is no key of ours; those before stay.
        """
        keys = _parsed(text)
        if keys[0].kid != self._keys[0].kid:
            _log.info("the token keys changed", extra={"kids": [key.kid for key in keys]})
            self._changes_s = self._clock() + self._lead_s
        self._keys = keys

    def signing(self) -> SigningKey:
        """The key that signs now."""
        wanted = self._keys[0]
        withdrawn = self._signing.kid not in {key.kid for key in self._keys}
        if withdrawn or self._clock() >= self._changes_s:
            self._signing = wanted
        return self._signing

    def jwks(self) -> str:
        """The JSON text of the JWK Set that verifies what they signed (RFC 7517)."""
        return json.dumps(
            {"keys": [{**key.public, "kid": key.kid, "alg": ALGORITHM, "use": "sig"} for key in self._keys]}
        )


async def keep_current(keys: SigningKeys, read: Callable[[], Awaitable[str]], every_s: float) -> None:
    """Looks for other keys, for ever."""
    while True:
        await asyncio.sleep(every_s)
        try:
            keys.use(await read())
        except FacetmeshError as error:
            _log.warning("the token keys could not be read again", extra={"reason": error.reason})


def _parsed(text: str) -> list[SigningKey]:
    keys = [_key(pem) for pem in _PEM.findall(text)]
    if not keys:
        raise _invalid()
    return keys


def _key(pem: str) -> SigningKey:
    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError):
        raise _invalid() from None
    if not isinstance(key, EllipticCurvePrivateKey) or not isinstance(key.curve, SECP256R1):
        raise _invalid()
    public = ECAlgorithm(ECAlgorithm.SHA256).to_jwk(key.public_key(), as_dict=True)
    # RFC 7638: the thumbprint hashes the required members in this order.
    members = json.dumps({name: public[name] for name in ("crv", "kty", "x", "y")}, separators=(",", ":"))
    return SigningKey(base64url_encode(hashlib.sha256(members.encode()).digest()).decode(), key, public)


def _invalid() -> FailedPrecondition:
    return FailedPrecondition("The secret token-signing-key is no P-256 key in PEM.", reason="SECRET_INVALID")
