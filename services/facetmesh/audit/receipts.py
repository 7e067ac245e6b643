"""Receipts: all that is needed to verify one event with the log's key alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from facetmesh.audit.announcements import announcement_id
from facetmesh.audit.records import PLATFORM, Sealer, Stored
from facetmesh.kit.errors import Internal, NotFound
from facetmesh.verify.entry import SALT_BYTES
from facetmesh.verify.event import parse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from facetmesh.audit.log import Log


@dataclass(frozen=True, slots=True)
class Opened:
    """What an entry commits to."""

    salt: bytes
    """32 random bytes."""
    signed_event: bytes
    """The serialized SignedEvent."""


@dataclass(frozen=True, slots=True)
class Proof:
    """That one entry is in the log, and what it commits to."""

    opened: Opened
    index: int
    """The entry's place, from 0."""
    hashes: Sequence[bytes]
    """Node hashes in the order of RFC 6962."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """An event, the announcement of the key that signed it, and the checkpoint over both."""

    event: Proof
    service_key: Proof
    checkpoint: str
    """A signed note."""


async def opened(stored: Stored, sealer: Sealer) -> Opened:
    """What a stored event's entry commits to.

    Raises:
        NotFound: The tenant's key was destroyed.
    """
    plain = await sealer.decrypt(stored.tenant or PLATFORM, stored.sealed, aad=stored.id.encode())
    return Opened(plain[:SALT_BYTES], plain[SALT_BYTES:])


class Receipts:
    """Makes receipts.

    Args:
        log: The log.
        sealer: Decrypts the events.
    """

    def __init__(self, log: Log, sealer: Sealer) -> None:
        self._log = log
        self._sealer = sealer

    async def get(self, tenant: str, event_id: str, *, wait_s: float) -> Receipt:
        """The receipt of a tenant's event.

        Args:
            tenant: The tenant's id.
            event_id: 32 hex characters.
            wait_s: How long to wait for the event to arrive, in seconds.

        Raises:
            NotFound: The tenant has no such event, or it did not arrive in time, or its key was destroyed.
        """
        stored = await self._log.find(event_id, wait_s=wait_s)
        if stored is None or stored.tenant != tenant:
            raise NotFound(
                "There is no such receipt. An event may take a moment to arrive: ask again with a wait.",
                reason="RECEIPT_NOT_FOUND",
            )
        # Taken before the proofs, which lead to it; both entries were in the log before it was signed.
        head, checkpoint = self._log.head, self._log.checkpoint
        event = await opened(stored, self._sealer)
        signed, _ = parse(event.signed_event)
        announced = await self._log.find(announcement_id(signed.key_id))
        if announced is None:
            raise Internal("The log lacks the key that signed this event.", reason="LOG_CORRUPT")
        key = await opened(announced, self._sealer)
        return Receipt(
            event=Proof(event, stored.index, await self._log.inclusion(stored.index, head.size)),
            service_key=Proof(key, announced.index, await self._log.inclusion(announced.index, head.size)),
            checkpoint=checkpoint,
        )
