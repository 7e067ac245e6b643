"""Links: who has one fetches one picture without a token, for a while.

A link is what it says (whose picture, until when, who made it) and an HMAC of that
under a key of the tenant's own, which is encrypted under the tenant's data key:
where that is destroyed, so are the links. A link counts as a token of who made it,
so that a revocation of the token, of the key or of the tenant covers it too.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from facetmesh.kit.errors import FailedPrecondition, NotFound, PermissionDenied

if TYPE_CHECKING:
    from collections.abc import Callable

    from facetmesh.fusion.operations import Ref

_DOMAIN = b"facetmesh-link-v1\n"
_MICROS = 1e6


class LinkKeys(Protocol):
    """The tenants' keys for links."""

    async def get(self, tenant_id: str) -> bytes | None:
        """The tenant's key; None where it has none. Raises NotFound where it was destroyed."""
        ...

    async def make(self, tenant_id: str) -> bytes:
        """The tenant's key, made where it has none."""
        ...


class Revoked(Protocol):
    """What was revoked: `kit.revocations.Revocations`."""

    def cover(self, issued_s: float, *names: str | None) -> bool:
        """Whether what was issued then, in one of these names, is revoked."""
        ...


@dataclass(frozen=True, slots=True)
class Maker:
    """Who makes a link."""

    subject: str
    """As tokens name them."""
    token_name: str
    """The token with which it was asked for."""
    bound: bool = False
    """Whether that works only with a client's certificate."""


@dataclass(frozen=True, slots=True)
class Link:
    """Leave to fetch a picture."""

    maker: Maker
    token: str
    """What has to be shown."""
    expires_s: float
    """Seconds since the epoch."""


class Links:
    """The links of all tenants.

    Args:
        keys: The tenants' keys.
        revoked: What was revoked.
        clock: Seconds since the epoch.
    """

    def __init__(self, keys: LinkKeys, revoked: Revoked, clock: Callable[[], float]) -> None:
        self._keys = keys
        self._revoked = revoked
        self._clock = clock

    async def make(self, ref: Ref, maker: Maker, lifetime_s: float) -> Link:
        """A link to a picture of the tenant's.

        Raises:
            FailedPrecondition: LINK_OF_BOUND_TOKEN: the link would work without the certificate.
            NotFound: DATA_DESTROYED: the tenant has been purged.
        """
        if maker.bound:
            raise FailedPrecondition(
                "The token is bound to a certificate, and a link would not be.", reason="LINK_OF_BOUND_TOKEN"
            )
        issued_us = int(self._clock() * _MICROS)
        expires_us = issued_us + int(lifetime_s * _MICROS)
        payload = json.dumps([issued_us, expires_us, maker.subject, maker.token_name]).encode()
        mac = _mac(await self._keys.make(ref.tenant_id), ref, payload)
        return Link(maker, f"{_text(payload)}.{_text(mac)}", expires_us / _MICROS)

    async def check(self, ref: Ref, token: str) -> Link:
        """The link that a token is, to this picture.

        Raises:
            PermissionDenied: LINK_INVALID: it is none, has expired, or was revoked; which of them is not told.
        """
        try:
            payload, mac = (_bytes(part) for part in token.split("."))
            issued_us, expires_us, subject, token_name = json.loads(payload)
            # What costs nothing first: anybody may ask.
            valid = self._clock() * _MICROS < expires_us
            key = await self._keys.get(ref.tenant_id) if valid else None
        except (ValueError, TypeError, RecursionError, binascii.Error, NotFound):
            raise _invalid() from None
        if key is None or not hmac.compare_digest(mac, _mac(key, ref, payload)):
            raise _invalid()
        if self._revoked.cover(issued_us / _MICROS, f"tenants/{ref.tenant_id}", subject, token_name):
            raise _invalid()
        return Link(Maker(subject, token_name), token, expires_us / _MICROS)


def _mac(key: bytes, ref: Ref, payload: bytes) -> bytes:
    said = b"%s%s/%s\n%s" % (_DOMAIN, ref.tenant_id.encode(), ref.id.encode(), payload)
    return hmac.digest(key, said, hashlib.sha256)


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")  # so that it is itself in a query


def _bytes(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)


def _invalid() -> PermissionDenied:
    return PermissionDenied("The link is not valid, or not any more.", reason="LINK_INVALID")
