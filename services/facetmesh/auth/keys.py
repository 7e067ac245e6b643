"""API keys: made, kept as keyed hashes, changed and revoked."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import secrets
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

from facetmesh.auth.plans import NO_LIMITS, Limits
from facetmesh.kit import apikeys
from facetmesh.kit.errors import (
    Aborted,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
)
from facetmesh.kit.updates import update

if TYPE_CHECKING:
    from collections.abc import Callable

    from facetmesh.auth.tenants import Revoke, Tenants


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
    limits: Limits = NO_LIMITS
    """What it may take of what its tenant may; no limit of its own where nothing is said."""


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

    @property
    def name(self) -> str:
        """The resource name."""
        return f"tenants/{self.tenant_id}/keys/{self.id}"

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


class KeyHash:
    """Hashes the texts of keys under a secret, so that a stolen store yields none.

    Args:
        pepper: The secret.
    """

    def __init__(self, pepper: bytes) -> None:
        self._pepper = pepper

    def __call__(self, text: str) -> str:
        """HMAC-SHA256 of the text, in hex."""
        return hmac.new(self._pepper, text.encode(), hashlib.sha256).hexdigest()


class Keys:
    """What can be done with keys.

    Args:
        store: Where they are kept.
        tenants: Whose they are.
        digest: Hashes their texts.
        revoke: Has the tokens of a name refused that were issued until then.
        clock: Seconds since the epoch.
    """

    def __init__(
        self, store: KeyStore, tenants: Tenants, digest: KeyHash, revoke: Revoke, clock: Callable[[], float]
    ) -> None:
        self._store = store
        self._tenants = tenants
        self._digest = digest
        self._revoke = revoke
        self._clock = clock

    async def create(self, tenant_id: str, spec: KeySpec) -> tuple[Key, str]:
        """A new key and its text, which nobody can read again.

        Raises:
            NotFound: There is no such tenant.
            InvalidArgument: As `check` does.
        """
        self.check(spec)
        await self._tenants.present(tenant_id)
        return await self._make(tenant_id, secrets.token_hex(8), spec)

    async def first(self, tenant_id: str, key_id: str, spec: KeySpec) -> tuple[Key, str]:
        """The key with this id and a new text; made if there is none. Its text is "" once it was used.

        Nobody holds a text that this returned to a caller who was cut off: a repeat makes another, and
        the one before works no more.

        Raises:
            NotFound: There is no such tenant.
            Aborted: It was changed meanwhile.
        """
        await self._tenants.present(tenant_id)
        existing = await self._store.key(tenant_id, key_id)
        if existing is None:
            with contextlib.suppress(Aborted):  # a repeat was faster: its key is the one
                return await self._make(tenant_id, key_id, spec)
        text = apikeys.new_key(tenant_id, key_id)

        def change(key: Key) -> Key:
            fresh = key.used_s is None and key.works(self._clock())
            return replace(key, digest=self._digest(text)) if fresh else key

        key = await self._change(tenant_id, key_id, change)
        return key, text if key.digest == self._digest(text) else ""

    def check(self, spec: KeySpec) -> None:
        """Returns when there can be such a key.

        Raises:
            InvalidArgument: It would have expired already, or an admin's would be limited.
        """
        if spec.expires_s is not None and spec.expires_s <= self._clock():
            raise InvalidArgument("expire_time: it has passed.", reason="EXPIRE_TIME_PAST")
        if (spec.methods or spec.models) and "tenant-admin" in spec.roles:
            raise InvalidArgument(
                "A tenant admin could make a key without limits: give the limited key other roles.",
                reason="ADMIN_NOT_LIMITED",
            )

    async def update(self, tenant_id: str, key_id: str, change: Callable[[Key], KeySpec], etag: str) -> Key:
        """The key, called otherwise or limited otherwise.

        Args:
            tenant_id: Whose.
            key_id: Which.
            change: What it is asked to be from now on, given what it is. Only its display name and its limits count.
            etag: What it must have; "" for any.

        Raises:
            NotFound: There is none.
            Aborted: It has another etag, or was changed meanwhile.
        """
        def changed(key: Key) -> Key:
            if etag not in ("", key.etag):
                raise Aborted("The key was changed meanwhile: read it again.", reason="ETAG_MISMATCH")
            wanted = change(key)
            return replace(key, display_name=wanted.display_name, limits=wanted.limits)

        return await self._change(tenant_id, key_id, changed)

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
        await self._revoke(key.name, self._clock())  # after the write: who read the key before it is covered
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
            await self._revoke(key.name, self._clock())
        return key, text

    async def _make(self, tenant_id: str, key_id: str, spec: KeySpec) -> tuple[Key, str]:
        text = apikeys.new_key(tenant_id, key_id)
        fields_ = {field.name: getattr(spec, field.name) for field in fields(KeySpec)}
        await self._store.save_key(
            Key(**fields_, tenant_id=tenant_id, id=key_id, digest=self._digest(text), created_s=self._clock())
        )
        return await self.get(tenant_id, key_id), text

    async def _change(self, tenant_id: str, key_id: str, change: Callable[[Key], Key]) -> Key:
        """The key as it is after the change, which may be tried more than once."""
        await update(partial(self.get, tenant_id, key_id), change, self._store.save_key)
        return await self.get(tenant_id, key_id)
