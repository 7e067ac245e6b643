"""Where services publish, in place of a broker."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from facetmesh.event.v1 import event_pb2
from facetmesh.kit.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from facetmesh.kit.dapr import Outgoing


@dataclass
class Bus:
    """Keeps what is published; takes nothing while it is away."""

    events: list[event_pb2.AuditEvent] = field(default_factory=list)
    alerts: list[tuple[str, bytes]] = field(default_factory=list)
    """By topic."""
    away: bool = False

    async def publish(
        self, topic: str, data: bytes, *, event_id: str, type: str,  # noqa: A002 - CloudEvents' own name
    ) -> None:
        """Keeps an alert."""
        assert event_id
        assert type
        self._check()
        self.alerts.append((topic, data))

    async def publish_many(
        self, topic: str, events: Sequence[Outgoing], *, type: str,  # noqa: A002 - as above
    ) -> list[str]:
        """Keeps audit events."""
        assert topic
        assert type
        self._check()
        signed = (event_pb2.SignedEvent.FromString(event.data) for event in events)
        self.events += [event_pb2.AuditEvent.FromString(one.event) for one in signed]
        return []

    def _check(self) -> None:
        if self.away:
            raise Unavailable("away")
