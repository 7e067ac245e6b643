"""API keys: made, kept as keyed hashes, revoked, and recognised."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from facetmesh.kit import apikeys
from facetmesh.kit.errors import NotFound, PermissionDenied, Unauthenticated

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from facetmesh.auth.tenants import Tenants


@dataclass(frozen=True, slots=True)
class Key:
    """What is kept of a key. Its text is not."""

    tenant_id: str
    id: str
    display_name: str
    roles: tuple[str, ...]
    """Names as tokens carry them."""
    digest: str
    """HMAC-SHA256 of the text under the pepper, in hex."""
    created_s: float
    """When it was made, in seconds since the epoch."""
    revoked_s: float | None = None
    """When it was revoked; None while it works."""
    etag: str = ""


class KeyStore(Protocol):
    """Where keys are kept."""

    async def key(self, tenant_id: str, key_id: str) -> Key | None:
        """The key."""
        ...

    async def save_key(self, key: Key) -> None:
        """Stores a key: a new one when its etag is empty.

        Raises:
            Aborted: It was changed since it was read.
        """
        ...

    async def key_ids(self, tenant_id: str) -> list[str]:
        """The tenant's key ids, sorted."""
        ...


@dataclass(frozen=True, slots=True)
class Grant:
    """What a key gives right to."""

    subject: str
    tenant_id: str | None
    roles: tuple[str, ...]


class Keys:
    """What can be done with keys.

    Args:
        store: Where they are kept.
        tenants: Whose they are.
        pepper: The secret under which texts are hashed: a stolen store yields no key.
        own: The texts of the platform's own keys (the administrator's and the services'), by (owner, id).
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        store: KeyStore,
        tenants: Tenants,
        pepper: bytes,
        own: Mapping[apikeys.ApiKey, str],
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._tenants = tenants
        self._pepper = pepper
        self._own = {key: self._digest(text) for key, text in own.items()}
        self._clock = clock

    async def create(self, tenant_id: str, display_name: str, roles: Sequence[str]) -> tuple[Key, str]:
        """A new key and its text, which nobody can read again.

        Raises:
            NotFound: There is no such tenant.
        """
        await self._tenants.present(tenant_id)
        key_id = secrets.token_hex(8)
        text = apikeys.new_key(tenant_id, key_id)
        key = Key(tenant_id, key_id, display_name, tuple(roles) or ("caller",), self._digest(text), self._clock())
        await self._store.save_key(key)
        return key, text

    async def get(self, tenant_id: str, key_id: str) -> Key:
        """The key.

        Raises:
            NotFound: There is none.
        """
        key = await self._store.key(tenant_id, key_id)
        if key is None:
            raise NotFound("There is no such key.", reason="KEY_NOT_FOUND")
        return key

    async def ids(self, tenant_id: str) -> list[str]:
        """The ids of the tenant's keys, sorted."""
        return await self._store.key_ids(tenant_id)

    async def revoke(self, tenant_id: str, key_id: str) -> Key:
        """The key, which can no longer be exchanged. A revoked one stays as it is.

        Raises:
            NotFound: There is none.
            Aborted: It was changed meanwhile.
        """
        key = await self.get(tenant_id, key_id)
        if key.revoked_s is None:
            await self._store.save_key(replace(key, revoked_s=self._clock()))
        return await self.get(tenant_id, key_id)

    async def grant(self, text: str, tenant_id: str | None) -> Grant:
        """What a key's text gives right to.

        Args:
            text: What the caller sent.
            tenant_id: The tenant that a service wants to act for.

        Raises:
            Unauthenticated: The key is unknown, wrong or revoked, or its tenant is deleted; which one is not told.
            PermissionDenied: The key may not act for this tenant, or the tenant is suspended.
            NotFound: A service's key, and there is no such tenant.
        """
        parsed = apikeys.parse(text)
        digest = self._digest(text)
        if parsed is None:
            raise _no_such_key()
        if parsed.owner in (apikeys.PLATFORM, apikeys.SERVICES):
            return await self._own_grant(parsed, digest, tenant_id)
        key = await self._store.key(parsed.owner, parsed.id)
        matches = hmac.compare_digest(digest, key.digest if key is not None else "0" * len(digest))
        if key is None or not matches or key.revoked_s is not None:
            raise _no_such_key()
        if tenant_id not in (None, key.tenant_id):
            raise PermissionDenied("The key may not act for this tenant.", reason="TENANT_MISMATCH")
        try:
            await self._tenants.served(key.tenant_id)
        except NotFound:
            raise _no_such_key() from None
        return Grant(f"tenants/{key.tenant_id}/keys/{key.id}", key.tenant_id, key.roles)

    async def _own_grant(self, parsed: apikeys.ApiKey, digest: str, tenant_id: str | None) -> Grant:
        if not hmac.compare_digest(digest, self._own.get(parsed, "0" * len(digest))):
            raise _no_such_key()
        if parsed.owner == apikeys.PLATFORM:
            if tenant_id is not None:
                raise PermissionDenied("The platform's key acts for no tenant.", reason="TENANT_MISMATCH")
            return Grant(f"{apikeys.PLATFORM}/{parsed.id}", None, ("platform-admin",))
        if tenant_id is not None:
            await self._tenants.served(tenant_id)
        return Grant(f"{apikeys.SERVICES}/{parsed.id}", tenant_id, ("service",))

    def _digest(self, text: str) -> str:
        return hmac.new(self._pepper, text.encode(), hashlib.sha256).hexdigest()


def _no_such_key() -> Unauthenticated:
    return Unauthenticated("The API key is not valid.", reason="KEY_INVALID")
