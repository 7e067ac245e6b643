"""Signed events: who did the work says what was done, with a key that the log vouches for."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from google.protobuf.message import DecodeError

from facetmesh.event.v1.event_pb2 import AuditEvent, SignedEvent
from facetmesh.verify.errors import VerificationError
from facetmesh.verify.merkle import inclusion_root, leaf_hash

if TYPE_CHECKING:
    from collections.abc import Mapping

CONTEXT = b"facetmesh-event-v1\n"
"""What stands before an event when it is signed, so that the signature is good for nothing else."""
BATCH_CONTEXT = b"facetmesh-events-v1\n"
"""What stands before the number and root hash of events that are signed together."""
ANNOUNCEMENT = "facetmesh.audit/service-key"
"""The method of events that announce a service's key."""
ANNOUNCER = "audit"
"""The service that announces keys."""
_PUBLIC_KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class ServiceKey:
    """The key with which a service signs events."""

    service: str
    public_key: bytes
    """Ed25519, 32 bytes."""

    @property
    def fingerprint(self) -> str:
        """16 hex characters of the public key's SHA-256."""
        return hashlib.sha256(self.public_key).hexdigest()[:16]

    @property
    def id(self) -> str:
        """{service}/{fingerprint}, as SignedEvent.key_id says it."""
        return f"{self.service}/{self.fingerprint}"

    @property
    def name(self) -> str:
        """services/{service}/keys/{fingerprint}: the resource of the key's announcement."""
        return f"services/{self.service}/keys/{self.fingerprint}"


def parse(data: bytes) -> tuple[SignedEvent, AuditEvent]:
    """A signed event and the event in it, with nothing checked yet.

    Raises:
        VerificationError: EVENT_MALFORMED.
    """
    try:
        signed = SignedEvent.FromString(data)
        return signed, AuditEvent.FromString(signed.event)
    except DecodeError:
        raise VerificationError("EVENT_MALFORMED", "Not a signed event.") from None


def open_event(data: bytes, keys: Mapping[str, ServiceKey]) -> AuditEvent:
    """The event in data, when the service that it names signed it.

    Args:
        data: A serialized SignedEvent.
        keys: The keys that are trusted, by their ids.

    Raises:
        VerificationError: EVENT_MALFORMED, EVENT_KEY_UNKNOWN, EVENT_SIGNATURE_WRONG or SERVICE_MISMATCH.
    """
    signed, event = parse(data)
    key = keys.get(signed.key_id)
    if key is None:
        raise VerificationError("EVENT_KEY_UNKNOWN", "The event is signed with a key that nobody vouches for.")
    try:
        if signed.batch_size:
            _verify_batch(key.public_key, signed.signature, signed.batch_size, _batch_root(signed))
        else:
            Ed25519PublicKey.from_public_bytes(key.public_key).verify(signed.signature, CONTEXT + signed.event)
    except (InvalidSignature, VerificationError):
        raise VerificationError("EVENT_SIGNATURE_WRONG", f"{key.id} did not sign this event.") from None
    if event.service != key.service:
        raise VerificationError("SERVICE_MISMATCH", f"{key.service} signed an event of {event.service!r}.")
    return event


def open_announcement(data: bytes) -> ServiceKey:
    """The key that the signed event in data announces.

    Only an announcement of audit's own key is checked against a signature, its
    own. For the others, that the log took them in is what counts: see `receipt`.

    Raises:
        VerificationError: EVENT_MALFORMED, ANNOUNCEMENT_MALFORMED, or for audit's own key EVENT_SIGNATURE_WRONG.
    """
    signed, event = parse(data)
    service = event.resource.removeprefix("services/").partition("/")[0]
    key = ServiceKey(service, event.service_public_key)
    if (
        event.service != ANNOUNCER
        or event.method != ANNOUNCEMENT
        or len(key.public_key) != _PUBLIC_KEY_BYTES
        or event.resource != key.name
        or not signed.key_id.startswith(f"{ANNOUNCER}/")
    ):
        raise VerificationError("ANNOUNCEMENT_MALFORMED", "Not the announcement of a service's key.")
    if signed.key_id == key.id:
        open_event(data, {key.id: key})
    return key


def _batch_root(signed: SignedEvent) -> bytes:
    """The root hash over the events that were signed together, if the event is one of them."""
    return inclusion_root(
        leaf=leaf_hash(signed.event), index=signed.batch_index, size=signed.batch_size, proof=signed.batch_hashes
    )


@lru_cache(maxsize=256)  # the events of a batch come together, and the check costs as much as all else with an event
def _verify_batch(public_key: bytes, signature: bytes, size: int, root: bytes) -> None:
    """Returns when the key signed this root hash. What raises is not remembered.

    Raises:
        InvalidSignature: It did not.
    """
    content = BATCH_CONTEXT + size.to_bytes(8, "big") + root
    Ed25519PublicKey.from_public_bytes(public_key).verify(signature, content)
