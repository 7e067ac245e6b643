"""The key with which a service signs what it publishes: a CloudEvent's source proves nothing."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from facetmesh.event.v1 import event_pb2

if TYPE_CHECKING:
    from google.protobuf.message import Message

SIGNATURE_CONTEXT = b"facetmesh-event-v1\n"
"""What stands before an audit event when it is signed, so that the signature is good for nothing else."""
ALERT_CONTEXT = b"facetmesh-alert-v1\n"
"""What stands before an alert."""


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

    def sign_alert(self, alert: event_pb2.Alert) -> bytes:
        """The serialized SignedAlert."""
        body, signature = self._signed(alert, ALERT_CONTEXT)
        return event_pb2.SignedAlert(alert=body, key_id=self.key_id, signature=signature).SerializeToString()

    def _signed(self, message: Message, context: bytes) -> tuple[bytes, bytes]:
        body = message.SerializeToString(deterministic=True)
        return body, self._key.sign(context + body)
