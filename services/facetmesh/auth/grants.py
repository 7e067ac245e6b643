"""What an API key gives right to: who holds one is recognised here."""

from __future__ import annotations

import contextlib
import hmac
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from facetmesh.auth.keys import Key
from facetmesh.kit import apikeys
from facetmesh.kit.errors import Aborted, NotFound, PermissionDenied, Unauthenticated, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from facetmesh.auth.keys import KeyHash, KeyStore
    from facetmesh.auth.tenants import Tenants

_NOBODYS = Key(digest="0" * 64, old_digest="0" * 64)
_LAST_USE_STEP_S = 3600.0
"""How coarse the time of the last use is: a write for each use would double the cost of a token."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What a key gives right to."""

    subject: str
    tenant_id: str | None
    roles: tuple[str, ...]
    methods: tuple[str, ...] = ()
    """The only methods; any when empty."""
    models: tuple[str, ...] = ()
    """The only models; any when empty."""
    expires_s: float | None = None
    """When the key stops working, and its tokens with it; None never."""
    region: str = ""
    """Where the tenant is served; anywhere when empty."""
    at_s: float | None = None
    """When the key was looked at: its tokens count from then, so that a revocation meanwhile covers them; None now."""


class Grants:
    """Recognises keys.

    Args:
        store: Where they are kept.
        tenants: Whose they are.
        digest: Hashes their texts.
        own: The texts of the platform's own keys (the administrator's and the services'), by (owner, id).
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        store: KeyStore,
        tenants: Tenants,
        digest: KeyHash,
        own: Mapping[apikeys.ApiKey, str],
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._tenants = tenants
        self._digest = digest
        self._own = {key: digest(text) for key, text in own.items()}
        self._clock = clock

    async def grant(self, text: str, tenant_id: str | None) -> Grant:
        """What a key's text gives right to.

        Args:
            text: What the caller sent.
            tenant_id: The tenant that a service wants to act for.

        Raises:
            Unauthenticated: The key is unknown, wrong, expired or revoked, or its tenant is deleted: which is not told.
            PermissionDenied: The key may not act for this tenant, or the tenant is suspended.
            NotFound: A service's key, and there is no such tenant.
        """
        now = self._clock()
        parsed = apikeys.parse(text)
        digest = self._digest(text)
        if parsed is None:
            raise _no_such_key()
        if parsed.owner in (apikeys.PLATFORM, apikeys.SERVICES):
            return await self._own_grant(parsed, digest, tenant_id, now)
        key = await self._store.key(parsed.owner, parsed.id)
        # The same work for a key that is not there, so that its absence does not take less time.
        if not ((key or _NOBODYS).matches(digest, now) and key is not None and key.works(now)):
            raise _no_such_key()
        if tenant_id not in (None, key.tenant_id):
            raise PermissionDenied("The key may not act for this tenant.", reason="TENANT_MISMATCH")
        try:
            tenant = await self._tenants.served(key.tenant_id)
        except NotFound:
            raise _no_such_key() from None
        await self._used(key, now)
        return Grant(
            key.name, key.tenant_id, key.roles, key.methods, key.models, key.expires_s, tenant.region, at_s=now
        )

    async def _own_grant(self, parsed: apikeys.ApiKey, digest: str, tenant_id: str | None, now: float) -> Grant:
        if not hmac.compare_digest(digest, self._own.get(parsed, "0" * len(digest))):
            raise _no_such_key()
        if parsed.owner == apikeys.PLATFORM:
            if tenant_id is not None:
                raise PermissionDenied("The platform's key acts for no tenant.", reason="TENANT_MISMATCH")
            return Grant(f"{apikeys.PLATFORM}/{parsed.id}", None, ("platform-admin",), at_s=now)
        region = "" if tenant_id is None else (await self._tenants.served(tenant_id)).region
        return Grant(f"{apikeys.SERVICES}/{parsed.id}", tenant_id, ("service",), region=region, at_s=now)

    async def _used(self, key: Key, now: float) -> None:
        """Notes the time, if the last note is old. Nobody is refused for want of it."""
        if key.used_s is None or now >= key.used_s + _LAST_USE_STEP_S:
            with contextlib.suppress(Aborted, Unavailable):
                await self._store.save_key(replace(key, used_s=now))


def _no_such_key() -> Unauthenticated:
    return Unauthenticated("The API key is not valid.", reason="KEY_INVALID")
