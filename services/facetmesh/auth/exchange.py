"""Keys that come with each request: exchanged for a token once, which then serves for a while."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from facetmesh.kit import apikeys
from facetmesh.kit.errors import Unauthenticated
from facetmesh.kit.revocations import Revocations

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from facetmesh.auth.grants import Grant
    from facetmesh.kit.revocations import Revocation

KEEP_S = 30.0
"""How long a token is handed out again before the key is looked at anew."""
_MOST_HELD = 16_384
"""Of each some 1.5 KB are kept."""


class KeyReader(Protocol):
    """Who recognises keys."""

    async def grant(self, text: str, tenant_id: str | None) -> Grant:
        """What a key's text gives right to."""
        ...


class Issuer(Protocol):
    """Who signs tokens."""

    def issue(self, grant: Grant) -> tuple[str, int]:
        """A token, and when it expires, in seconds since the epoch."""
        ...


@dataclass(frozen=True, slots=True)
class _Held:
    token: str
    grant: Grant
    until_s: float


class Exchange:
    """Exchanges keys for tokens, and remembers them: under the key's hash, never its text.

    Args:
        keys: Recognises keys.
        issuer: Signs tokens.
        digest: Hashes a key's text.
        account: Returns once the exchange has been recorded; without that no token leaves.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        keys: KeyReader,
        issuer: Issuer,
        digest: Callable[[str], str],
        account: Callable[[Grant], Awaitable[None]],
        clock: Callable[[], float],
    ) -> None:
        self._keys = keys
        self._issuer = issuer
        self._digest = digest
        self._account = account
        self._clock = clock
        self._held: OrderedDict[str, _Held] = OrderedDict()
        self._pending: dict[str, asyncio.Future[str]] = {}
        self._revocations = Revocations()

    async def token(self, text: str) -> str:
        """A token for a key. Who asks at the same time for the same key is answered from one look-up.

        Raises:
            Unauthenticated: The key is unknown, wrong, expired or revoked, or a service's own, which work inside only.
            PermissionDenied: The tenant is suspended.
            Unavailable: It cannot be looked up, or not be recorded.
        """
        digest = self._digest(text)
        held = self._held.get(digest)
        if held is not None and self._clock() < held.until_s:
            self._held.move_to_end(digest)
            return held.token
        pending = self._pending.get(digest)
        if pending is None:
            pending = self._pending[digest] = asyncio.ensure_future(self._exchange(text, digest))
            pending.add_done_callback(lambda done: self._ended(digest, done))
        return await asyncio.shield(pending)  # who goes away does not take the others' answer along

    def hear(self, revocations: Sequence[Revocation]) -> None:
        """Forgets the tokens that these cover."""
        self._revocations.add(revocations, self._clock())
        # Which key a single token came from is not said: all of its tenant are had anew.
        touched = {one.name.partition("/tokens/")[0] for one in revocations if "/tokens/" in one.name}
        for digest, held in list(self._held.items()):
            if self._revoked(held.grant) or f"tenants/{held.grant.tenant_id or apikeys.PLATFORM}" in touched:
                del self._held[digest]

    async def _exchange(self, text: str, digest: str) -> str:
        parsed = apikeys.parse(text)
        if parsed is None or parsed.owner == apikeys.SERVICES:
            raise _invalid()
        grant = await self._keys.grant(text, None)
        token, expires_s = self._issuer.issue(grant)
        await self._account(grant)
        if self._revoked(grant):
            raise _invalid()
        self._held[digest] = _Held(token, grant, min(self._clock() + KEEP_S, expires_s))
        if len(self._held) > _MOST_HELD:
            self._held.popitem(last=False)
        return token

    def _revoked(self, grant: Grant) -> bool:
        tenant = f"tenants/{grant.tenant_id}" if grant.tenant_id is not None else None
        return grant.at_s is not None and self._revocations.cover(grant.at_s, grant.subject, tenant)

    def _ended(self, digest: str, done: asyncio.Future[str]) -> None:
        del self._pending[digest]
        if not done.cancelled():
            done.exception()  # whoever waited may be gone: nothing is left to tell


def _invalid() -> Unauthenticated:
    return Unauthenticated("The API key is not valid.", reason="KEY_INVALID")
