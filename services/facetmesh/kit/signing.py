"""The key with which a service signs what it publishes: a CloudEvent's source proves nothing."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from facetmesh.event.v1 import event_pb2

if TYPE_CHECKING:
    from collections.abc import Sequence

    from google.protobuf.message import Message

SIGNATURE_CONTEXT = b"facetmesh-event-v1\n"
"""What stands before an audit event when it is signed, so that the signature is good for nothing else."""
BATCH_CONTEXT = b"facetmesh-events-v1\n"
"""What stands before the number and root hash of events that are signed together."""
ALERT_CONTEXT = b"facetmesh-alert-v1\n"
"""What stands before an alert."""
_LARGEST_BATCH = 16
"""The more share a signature, the less each costs, and the longer each one's proof: 32 bytes for each doubling."""


class EventSigner:
    """Signs events with a service's Ed25519 key.

    Args:
        service: Whose key it is.
        seed: The 32 raw private bytes.
    """

    def __init__(self, service: str, seed: bytes) -> None:
        self.service = service
        """Whose key it is."""
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        public = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.key_id = f"{service}/{hashlib.sha256(public).hexdigest()[:16]}"
        """{service}/{first 16 hex characters of the SHA-256 of the public key}."""

    def sign(self, event: event_pb2.AuditEvent) -> bytes:
        """The serialized SignedEvent."""
        body, signature = self._signed(event, SIGNATURE_CONTEXT)
        return event_pb2.SignedEvent(event=body, key_id=self.key_id, signature=signature).SerializeToString()

    def sign_many(self, events: Sequence[event_pb2.AuditEvent]) -> list[bytes]:
        """The serialized SignedEvents, of which up to 16 share a signature: checking one costs 0.1 ms.

        Each can still be verified alone: beside the signature it has a Merkle proof that leads to what was signed,
        which tells nobody of the other events, for each has a random salt.
        """
        signed = []
        for start in range(0, len(events), _LARGEST_BATCH):
            batch = events[start : start + _LARGEST_BATCH]
            signed += [self.sign(batch[0])] if len(batch) == 1 else self._sign_batch(batch)
        return signed

    def _sign_batch(self, events: Sequence[event_pb2.AuditEvent]) -> list[bytes]:
        bodies = [event.SerializeToString(deterministic=True) for event in events]
        root, proofs = _tree([hashlib.sha256(b"\x00" + body).digest() for body in bodies])
        signature = self._key.sign(BATCH_CONTEXT + len(bodies).to_bytes(8, "big") + root)
        return [
            event_pb2.SignedEvent(
                event=body, key_id=self.key_id, signature=signature, batch_size=len(bodies), batch_index=index,
                batch_hashes=proof,
            ).SerializeToString()
            for index, (body, proof) in enumerate(zip(bodies, proofs, strict=True))
        ]  # fmt: skip

    def sign_alert(self, alert: event_pb2.Alert) -> bytes:
        """The serialized SignedAlert."""
        body, signature = self._signed(alert, ALERT_CONTEXT)
        return event_pb2.SignedAlert(alert=body, key_id=self.key_id, signature=signature).SerializeToString()

    def _signed(self, message: Message, context: bytes) -> tuple[bytes, bytes]:
        body = message.SerializeToString(deterministic=True)
        return body, self._key.sign(context + body)


def _tree(hashes: Sequence[bytes]) -> tuple[bytes, list[list[bytes]]]:
    """RFC 6962's root hash over leaf hashes, and the inclusion proof of each."""
    if len(hashes) == 1:
        return hashes[0], [[]]
    middle = 1 << ((len(hashes) - 1).bit_length() - 1)
    left, left_proofs = _tree(hashes[:middle])
    right, right_proofs = _tree(hashes[middle:])
    proofs = [[*proof, right] for proof in left_proofs] + [[*proof, left] for proof in right_proofs]
    return hashlib.sha256(b"\x01" + left + right).digest(), proofs
