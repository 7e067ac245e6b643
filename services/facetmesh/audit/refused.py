"""Events that the log cannot take in: somebody forges them, or a service is broken. Either way somebody should look."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Counter

from facetmesh.kit.alerts import Alert

if TYPE_CHECKING:
    from collections.abc import Callable

    from prometheus_client import CollectorRegistry

RULE = "events-refused"
WINDOW_S = 60.0
"""At most one alert in this time, in seconds; the others are counted."""


class RefusedEvents:
    """Counts them, and raises an alert now and then.

    Args:
        registry: Where the metric is registered.
        offer: Raises an alert in the background.
        clock: Seconds, from any beginning.
    """

    def __init__(
        self, registry: CollectorRegistry, offer: Callable[[Alert], None], clock: Callable[[], float]
    ) -> None:
        self._counter = Counter(
            "facetmesh_audit_events_refused", "Events that the log could not take in.", ["reason"], registry=registry
        )
        self._offer = offer
        self._clock = clock
        self._count = 0
        self._quiet_until = float("-inf")

    def __call__(self, reason: str, source: str) -> None:
        """Takes note of one."""
        self._counter.labels(reason).inc()
        self._count += 1
        now = self._clock()
        if now < self._quiet_until:
            return
        self._quiet_until = now + WINDOW_S
        what = f"{self._count} events could not be logged, the last for {reason}: see the dead letters of audit.events."
        self._offer(Alert(RULE, what, critical=True, subject=source, count=self._count, window_s=WINDOW_S))
        self._count = 0
