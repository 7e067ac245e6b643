"""Alerts: what somebody should look at, as signed events on a topic of their own, in the log, and as a metric."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from facetmesh.event.v1 import event_pb2
from facetmesh.kit.errors import FacetmeshError

if TYPE_CHECKING:
    from collections.abc import Callable

    from facetmesh.kit.signing import EventSigner
    from facetmesh.kit.telemetry import Metrics

TOPIC = "alerts"
EVENT_TYPE = "facetmesh.event.v1.SignedAlert"
_MOST_PENDING = 64
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Alert:
    """A rule that came true."""

    rule: str
    """Which rule, in lower case with hyphens, such as refusals-from-source."""
    summary: str
    """One sentence for the operator."""
    critical: bool = False
    """Whether somebody should look now, and not when there is time."""
    tenant: str = ""
    """tenants/{tenant}; empty where it is about no tenant, or about several."""
    subject: str = ""
    """What it is about: a network address, a key, a model."""
    count: int = 0
    """How many events made it true; 0 where none were counted."""
    window_s: float = 0.0
    """Over how long they were counted, in seconds."""


class Publisher(Protocol):
    """Where events go."""

    async def publish(self, topic: str, data: bytes, *, event_id: str, type: str) -> None:  # noqa: A002 - CloudEvents' own name
        """Publishes an event."""
        ...


class Alerts:
    """Raises alerts.

    Args:
        region: Where this process runs.
        signer: The key of the service that notices.
        publisher: Where events go.
        metrics: What is counted.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        region: str,
        signer: EventSigner,
        publisher: Publisher,
        metrics: Metrics,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._region = region
        self._signer = signer
        self._publisher = publisher
        self._metrics = metrics
        self._clock = clock
        self._pending: set[asyncio.Task[None]] = set()

    async def publish(self, alert: Alert) -> None:
        """Raises an alert. Once this returns, its event survives a crash.

        Raises:
            Unavailable: The event was not accepted. The log and the metric have it all the same.
        """
        self._note(alert)
        await self._send(alert)

    def offer(self, alert: Alert) -> None:
        """Raises an alert in the background. Its event may be lost; the log and the metric have it."""
        self._note(alert)
        if len(self._pending) < _MOST_PENDING:
            task = asyncio.get_running_loop().create_task(self._try_to_send(alert))
            self._pending.add(task)
            task.add_done_callback(self._pending.discard)

    async def close(self) -> None:
        """Waits for what is on its way."""
        await asyncio.gather(*self._pending)

    def _note(self, alert: Alert) -> None:
        self._metrics.alerts.labels(alert.rule).inc()
        _log.warning(
            "alert", extra={"rule": alert.rule, "summary": alert.summary, "tenant": alert.tenant,
                            "subject": alert.subject, "count": alert.count},
        )  # fmt: skip

    async def _try_to_send(self, alert: Alert) -> None:
        try:
            await self._send(alert)
        except FacetmeshError as error:
            _log.warning("an alert's event was lost", extra={"rule": alert.rule, "reason": error.reason})

    async def _send(self, alert: Alert) -> None:
        severity = event_pb2.Alert.SEVERITY_CRITICAL if alert.critical else event_pb2.Alert.SEVERITY_WARNING
        message = event_pb2.Alert(
            id=secrets.token_hex(16), service=self._signer.service, rule=alert.rule, severity=severity,
            tenant=alert.tenant, subject=alert.subject, summary=alert.summary, count=alert.count, region=self._region,
        )  # fmt: skip
        message.time.FromNanoseconds(int(self._clock() * 1e9))
        message.window.FromNanoseconds(int(alert.window_s * 1e9))
        data = self._signer.sign_alert(message)
        await self._publisher.publish(TOPIC, data, event_id=message.id, type=EVENT_TYPE)
