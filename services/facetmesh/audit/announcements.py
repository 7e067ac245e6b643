"""Announces the services' signing keys in the log, so that receipts can be traced to it.

`facetmesh.verify.receipt` says what an announcement proves.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Protocol

from facetmesh.event.v1.event_pb2 import AuditEvent
from facetmesh.verify.event import ANNOUNCEMENT, ANNOUNCER, ServiceKey

if TYPE_CHECKING:
    from collections.abc import Iterable


class Signer(Protocol):
    """audit's own event key."""

    def sign(self, event: AuditEvent) -> bytes:
        """The serialized SignedEvent."""
        ...


def announcement_id(key_id: str) -> str:
    """The event id of a key's announcement. It follows from the key's, so that a receipt can find it."""
    return hashlib.sha256(f"{ANNOUNCEMENT}\n{key_id}".encode()).hexdigest()[:32]


def in_order(keys: Iterable[ServiceKey]) -> list[ServiceKey]:
    """The keys, with audit's own, which announces the others, before them."""
    return sorted(keys, key=lambda key: (key.service != ANNOUNCER, key.service))


def announcement(key: ServiceKey, signer: Signer, *, now_s: float, region: str) -> bytes:
    """The signed event that announces a key.

    Args:
        key: The key to announce.
        signer: audit's own event key.
        now_s: Seconds since the epoch.
        region: Where the log is run.
    """
    event = AuditEvent(
        id=announcement_id(key.id), service=ANNOUNCER, method=ANNOUNCEMENT, subject=f"services/{ANNOUNCER}",
        resource=key.name, region=region, outcome=AuditEvent.OUTCOME_OK, code="OK",
        service_public_key=key.public_key,
    )
    event.time.FromMicroseconds(int(now_s * 1e6))
    return signer.sign(event)
