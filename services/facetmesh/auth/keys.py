"""API keys: made, kept as keyed hashes, revoked, and recognised."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import secrets
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Protocol

from facetmesh.kit import apikeys
from facetmesh.kit.errors import (
    Aborted,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from facetmesh.auth.tenants import Revoke, Tenants


_LAST_USE_STEP_S = 3600.0
"""How coarse the time of the last use is: a write for each use would double the cost of a token."""
_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class KeySpec:
    """What a key is asked to be."""

    display_name: str = ""
    """What people call it."""
    roles: tuple[str, ...] = ("caller",)
    """Names as tokens carry them."""
    expires_s: float | None = None
    """When it stops working, in seconds since the epoch; None never."""
    methods: tuple[str, ...] = ()
    """The only methods that it may call; any when empty."""
    models: tuple[str, ...] = ()
    """The only models that it may name; any when empty."""


@dataclass(frozen=True, slots=True)
class Key(KeySpec):
    """What is kept of a key. Its text is not."""

    tenant_id: str = ""
    id: str = ""
    digest: str = ""
    """HMAC-SHA256 of the text under the pepper, in hex."""
    created_s: float = 0.0
    """When it was made, in seconds since the epoch."""
    revoked_s: float | None = None
    """When it was revoked; None while it works."""
    used_s: float | None = None
    """When it was last exchanged, accurate to an hour; None when never."""
    old_digest: str = ""
    """Of the text before the last rotation."""
    old_until_s: float = 0.0
    """Until when that text works."""
    etag: str = ""

    def works(self, now: float) -> bool:
        """Whether it can be exchanged."""
        return self.revoked_s is None and (self.expires_s is None or now < self.expires_s)

    def matches(self, digest: str, now: float) -> bool:
        """Whether the digest is that of its text, or of the one before while that works."""
        new = hmac.compare_digest(digest, self.digest)
        old = hmac.compare_digest(digest, self.old_digest) and now < self.old_until_s
        return new or old


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
    methods: tuple[str, ...] = ()
    """The only methods; any when empty."""
    models: tuple[str, ...] = ()
    """The only models; any when empty."""
    expires_s: float | None = None
    """When the key stops working, and its tokens with it; None never."""
    at_s: float | None = None
    """When the key was looked at: its tokens count from then, so that a revocation meanwhile covers them; None now."""


class Keys:
    """What can be done with keys.

    Args:
        store: Where they are kept.
        tenants: Whose they are.
        pepper: The secret under which texts are hashed: a stolen store yields no key.
        revoke: Has the tokens of a name refused that were issued until then.
        own: The texts of the platform's own keys (the administrator's and the services'), by (owner, id).
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        store: KeyStore,
        tenants: Tenants,
        pepper: bytes,
        revoke: Revoke,
        own: Mapping[apikeys.ApiKey, str],
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._tenants = tenants
        self._pepper = pepper
        self._revoke = revoke
        self._own = {key: self._digest(text) for key, text in own.items()}
        self._clock = clock

    async def create(self, tenant_id: str, spec: KeySpec) -> tuple[Key, str]:
        """A new key and its text, which nobody can read again.

        Raises:
            NotFound: There is no such tenant.
            InvalidArgument: It would have expired already, or an admin's would be limited.
        """
        now = self._clock()
        if spec.expires_s is not None and spec.expires_s <= now:
            raise InvalidArgument("expire_time: it has passed.", reason="EXPIRE_TIME_PAST")
        if (spec.methods or spec.models) and "tenant-admin" in spec.roles:
            raise InvalidArgument(
                "A tenant admin could make a key without limits: give the limited key other roles.",
                reason="ADMIN_NOT_LIMITED",
            )
        await self._tenants.present(tenant_id)
        key_id = secrets.token_hex(8)
        text = apikeys.new_key(tenant_id, key_id)
        await self._store.save_key(
            Key(**asdict(spec), tenant_id=tenant_id, id=key_id, digest=self._digest(text), created_s=now)
        )
        return await self.get(tenant_id, key_id), text

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
        """The key, which can no longer be exchanged, and whose tokens are refused. A revoked one stays as it is.

        Raises:
            NotFound: There is none.
            Aborted: It was changed meanwhile.
        """
        def change(key: Key) -> Key:
            return key if key.revoked_s is not None else replace(key, revoked_s=self._clock())

        key = await self._change(tenant_id, key_id, change)
        await self._revoke(_name(key), self._clock())  # after the write: who read the key before it is covered
        return key

    async def rotate(self, tenant_id: str, key_id: str, overlap_s: float) -> tuple[Key, str]:
        """The key with a new text, which nobody can read again; the old one works for overlap_s more.

        Without an overlap, the key's tokens are refused: the old text is taken to be known to others.

        Raises:
            NotFound: There is none.
            FailedPrecondition: It works no more.
            Aborted: It was changed meanwhile.
        """
        text = apikeys.new_key(tenant_id, key_id)

        def change(key: Key) -> Key:
            now = self._clock()
            if not key.works(now):
                raise FailedPrecondition("The key works no more: create another.", reason="KEY_ENDED")
            return replace(key, digest=self._digest(text), old_digest=key.digest, old_until_s=now + overlap_s)

        key = await self._change(tenant_id, key_id, change)
        if not overlap_s:
            await self._revoke(_name(key), self._clock())
        return key, text

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
        if key is None or not key.matches(digest, now) or not key.works(now):
            raise _no_such_key()
        if tenant_id not in (None, key.tenant_id):
            raise PermissionDenied("The key may not act for this tenant.", reason="TENANT_MISMATCH")
        try:
            await self._tenants.served(key.tenant_id)
        except NotFound:
            raise _no_such_key() from None
        await self._used(key, now)
        return Grant(
            _name(key), key.tenant_id, key.roles, key.methods, key.models, key.expires_s, at_s=now
        )

    async def _own_grant(self, parsed: apikeys.ApiKey, digest: str, tenant_id: str | None, now: float) -> Grant:
        if not hmac.compare_digest(digest, self._own.get(parsed, "0" * len(digest))):
            raise _no_such_key()
        if parsed.owner == apikeys.PLATFORM:
            if tenant_id is not None:
                raise PermissionDenied("The platform's key acts for no tenant.", reason="TENANT_MISMATCH")
            return Grant(f"{apikeys.PLATFORM}/{parsed.id}", None, ("platform-admin",), at_s=now)
        if tenant_id is not None:
            await self._tenants.served(tenant_id)
        return Grant(f"{apikeys.SERVICES}/{parsed.id}", tenant_id, ("service",), at_s=now)

    async def _used(self, key: Key, now: float) -> None:
        """Notes the time, if the last note is old. Nobody is refused for want of it."""
        if key.used_s is None or now >= key.used_s + _LAST_USE_STEP_S:
            with contextlib.suppress(Aborted, Unavailable):
                await self._store.save_key(replace(key, used_s=now))

    async def _change(self, tenant_id: str, key_id: str, change: Callable[[Key], Key]) -> Key:
        """The key as it is after the change, which may be tried more than once."""
        for _ in range(_ATTEMPTS):
            key = await self.get(tenant_id, key_id)
            changed = change(key)
            if changed == key:
                return key
            with contextlib.suppress(Aborted):  # such as by the note of its last use
                await self._store.save_key(changed)
                return await self.get(tenant_id, key_id)
        raise Aborted("The key is being changed: try again.", retry_after_s=0.1)

    def _digest(self, text: str) -> str:
        return hmac.new(self._pepper, text.encode(), hashlib.sha256).hexdigest()


def _name(key: Key) -> str:
    return f"tenants/{key.tenant_id}/keys/{key.id}"


def _no_such_key() -> Unauthenticated:
    return Unauthenticated("The API key is not valid.", reason="KEY_INVALID")
