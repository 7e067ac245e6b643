"""Consents: whose face may be fused, for what and until when."""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Protocol

from facetmesh.kit.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from facetmesh.kit.updates import update

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

LONGEST_S = 3653 * 24 * 3600.0
"""How far ahead a consent may end: ten years."""
_DOMAIN = b"facetmesh-consent-v1\n"
_TIME_DIGITS = 12


class State(StrEnum):
    """Whether a consent can be used."""

    ACTIVE = "active"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class SourceFace:
    """A face in a photo."""

    image_sha256: str
    """Of the photo's file, in hex."""
    face_index: int = 0
    """0 is the largest face."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a person agreed to."""

    subject: str
    """Who: a reference of the tenant's own, or a name."""
    purpose: str
    faces: tuple[SourceFace, ...]
    evidence_sha256: str
    """Of what proves it, in hex."""
    expires_s: float
    """Seconds since the epoch, as all times here."""


@dataclass(frozen=True, slots=True)
class Consent:
    """A person's agreement, as it is kept."""

    tenant_id: str
    id: str
    """32 hex characters."""
    terms: Terms
    created_s: float
    salt: str = field(default_factory=lambda: secrets.token_hex(16))
    revoked_s: float | None = None
    etag: str = ""
    """Of the stored record; empty for a new one."""

    @property
    def name(self) -> str:
        """The resource name."""
        return f"tenants/{self.tenant_id}/consents/{self.id}"

    @property
    def sha256(self) -> str:
        """The commitment to what was agreed to, in hex; `consent.proto` says of what. Revoking does not change it."""
        terms = asdict(self.terms)
        terms["faces"] = [[face.image_sha256, face.face_index] for face in self.terms.faces]
        del terms["expires_s"]
        times = {"created_us": _microseconds(self.created_s), "expires_us": _microseconds(self.terms.expires_s)}
        fields = {**terms, **times, "name": self.name, "salt": self.salt}
        text = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(_DOMAIN + text.encode()).hexdigest()

    def state(self, now: float) -> State:
        """Whether it can be used now."""
        if self.revoked_s is not None:
            return State.REVOKED
        return State.EXPIRED if now >= self.terms.expires_s else State.ACTIVE

    def check(self, face: SourceFace, now: float) -> None:
        """Returns when it lets that face be fused now.

        Raises:
            FailedPrecondition: CONSENT_REVOKED, CONSENT_EXPIRED or CONSENT_MISMATCH.
        """
        match self.state(now):
            case State.REVOKED:
                raise _refusal("The consent was revoked.", "CONSENT_REVOKED", self.name)
            case State.EXPIRED:
                raise _refusal("The consent's time is over.", "CONSENT_EXPIRED", self.name)
        if face not in self.terms.faces:
            raise _refusal("The consent is not about this face of this photo.", "CONSENT_MISMATCH", self.name)


class Store(Protocol):
    """Where consents are kept."""

    async def get(self, tenant_id: str, consent_id: str) -> Consent | None:
        """The consent; None when there is none."""
        ...

    async def create(self, consent: Consent) -> bool:
        """Stores a new consent; False when there is one with its id."""
        ...

    async def save(self, consent: Consent) -> None:
        """Stores a consent in place of the version that was read; raises Aborted when that has changed."""
        ...

    async def ids(self, tenant_id: str) -> list[str]:
        """The ids of a tenant's consents, sorted; some may have no record."""
        ...


class Consents:
    """The consents of all tenants.

    Args:
        store: Where they are kept.
        clock: Seconds since the epoch.
        required: Whether nothing is fused without one.
    """

    def __init__(self, store: Store, clock: Callable[[], float], *, required: bool = True) -> None:
        self._store = store
        self._clock = clock
        self._required = required

    async def create(self, tenant_id: str, terms: Terms, request_id: str = "") -> Consent:
        """Keeps a consent.

        Args:
            tenant_id: Whose it is.
            terms: What was agreed to.
            request_id: A repeated one returns the first call's consent.

        Raises:
            InvalidArgument: EXPIRE_TIME_OUT_OF_RANGE: it is over already, or ends more than ten years ahead.
            AlreadyExists: REQUEST_ID_REUSED: the request_id came with something else before.
        """
        now = self._clock()
        consent = Consent(tenant_id, _id(now, request_id), terms, now)
        existing = await self._store.get(tenant_id, consent.id) if request_id else None
        if existing is None:
            if not now < terms.expires_s <= now + LONGEST_S:
                raise InvalidArgument(
                    "expire_time must lie in the future, ten years ahead at most.", reason="EXPIRE_TIME_OUT_OF_RANGE"
                )
            if await self._store.create(consent):
                return consent
            existing = await self.get(tenant_id, consent.id)
        if existing.terms != terms:
            raise AlreadyExists("This request_id came with another request before.", reason="REQUEST_ID_REUSED")
        return existing

    async def get(self, tenant_id: str, consent_id: str) -> Consent:
        """The consent; raises NotFound when there is none."""
        if (consent := await self._store.get(tenant_id, consent_id)) is None:
            raise NotFound("There is no such consent.")
        return consent

    async def ids(self, tenant_id: str) -> Sequence[str]:
        """The ids of a tenant's consents, the newest first but for those made with a request_id."""
        return (await self._store.ids(tenant_id))[::-1]

    async def revoke(self, tenant_id: str, consent_id: str) -> Consent:
        """Ends a consent, unless it was revoked before.

        Raises:
            NotFound: There is none.
            Aborted: Too many changes at once.
        """
        def revoked(consent: Consent) -> Consent:
            return consent if consent.revoked_s is not None else replace(consent, revoked_s=self._clock())

        return await update(partial(self.get, tenant_id, consent_id), revoked, self._store.save)

    async def named(self, tenant_id: str, name: str) -> Consent | None:
        """The consent that a fusion names, whether it can be used or not; None where it names none and needs none.

        Raises:
            FailedPrecondition: CONSENT_MISSING: the tenant has no such consent, or none is named.
        """
        if not name and not self._required:
            return None
        parent, _, consent_id = name.rpartition("/")
        # A platform administrator may name what is another tenant's: that is no consent to this one.
        own = parent == f"tenants/{tenant_id}/consents"
        if not own or (consent := await self._store.get(tenant_id, consent_id)) is None:
            raise _refusal("A fusion needs the consent of whose face is taken: name one.", "CONSENT_MISSING", name)
        return consent

    async def check(self, tenant_id: str, name: str, face: SourceFace) -> None:
        """Returns when the named consent lets that face be fused now.

        Raises:
            FailedPrecondition: CONSENT_MISSING, CONSENT_REVOKED, CONSENT_EXPIRED or CONSENT_MISMATCH.
        """
        if (consent := await self.named(tenant_id, name)) is not None:
            consent.check(face, self._clock())


def _id(now: float, request_id: str) -> str:
    """32 hex characters: the time and chance, or, for a request_id, always the same."""
    if request_id:
        return hashlib.sha256(_DOMAIN + request_id.encode()).hexdigest()[:32]
    return f"{int(now * 1000):0{_TIME_DIGITS}x}{secrets.token_hex(10)}"


def _microseconds(seconds: float) -> int:
    return round(seconds * 1e6)


def _refusal(message: str, reason: str, name: str) -> FailedPrecondition:
    return FailedPrecondition(message, reason=reason, metadata={"consent": name})
