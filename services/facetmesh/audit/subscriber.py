"""Takes audit events from pub/sub into the log."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from facetmesh.kit import telemetry
from facetmesh.kit.dapr import Disposition

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from facetmesh.audit.log import Log
    from facetmesh.kit.dapr import Event

_SPAN = "audit.events process"
_log = logging.getLogger(__name__)


class Subscriber:
    """Handles the topic `audit.events`.

    Args:
        log: The log.
        refused: Told of each event that can never be logged, with the reason and who is said to have published it.
    """

    def __init__(self, log: Log, refused: Callable[[str, str], None]) -> None:
        self._log = log
        self._refused = refused

    async def handle(self, events: Sequence[Event]) -> list[Disposition]:
        """Logs events. Those that can never be logged go to the dead letters, with a line that says why.

        Raises:
            Unavailable: None was logged; they may come again.
        """
        with telemetry.continued(_SPAN, [event.traceparent for event in events]):
            refusals = await self._log.ingest([event.data for event in events])
        for event, refusal in zip(events, refusals, strict=True):
            if refusal is not None:
                _log.warning(
                    "an event was refused",
                    extra={"event": event.id, "source": event.source, "reason": refusal.reason,
                           "detail": refusal.detail},
                )  # fmt: skip
                self._refused(refusal.reason, event.source)
        return [Disposition.OK if refusal is None else Disposition.DROP for refusal in refusals]
