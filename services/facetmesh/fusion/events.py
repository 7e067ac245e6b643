"""Events of fusion: hints that wake a worker of whichever replica hears them."""

from __future__ import annotations

import logging
import re
import secrets
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from facetmesh.event.v1 import event_pb2
from facetmesh.fusion.operations import Ref
from facetmesh.kit.dapr import Disposition
from facetmesh.kit.errors import FacetmeshError, NotFound

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from facetmesh.fusion.line import Ticket
    from facetmesh.fusion.operations import Operation
    from facetmesh.kit.dapr import Event, Publisher

TOPIC = "fusion.jobs"
EVENT_TYPE = "facetmesh.event.v1.FusionJob"
_NAME = re.compile(r"tenants/([a-z0-9-]+)/operations/([0-9a-f]{32})")
_log = logging.getLogger(__name__)


class JobEvents:
    """Publishes and takes in `fusion.jobs`.

    Args:
        publisher: Where events go.
        wake: Looks at an operation.
        find: An operation; raises NotFound where there is none.
    """

    def __init__(
        self, publisher: Publisher, wake: Callable[[Ticket], None], find: Callable[[Ref], Awaitable[Operation]]
    ) -> None:
        self._publisher = publisher
        self._wake = wake
        self._find = find

    async def announce(self, ticket: Ticket) -> None:
        """Wakes a worker here, and one of some replica. Does not fail: workers look for themselves too."""
        self._wake(ticket)
        ref = ticket.ref
        job = event_pb2.FusionJob(operation=f"tenants/{ref.tenant_id}/operations/{ref.id}")
        try:
            await self._publisher.publish(
                TOPIC, job.SerializeToString(), event_id=secrets.token_hex(16), type=EVENT_TYPE
            )
        except FacetmeshError as error:
            _log.warning("a job was not announced", extra={"operation": job.operation, "reason": error.reason})

    async def handle(self, events: Sequence[Event]) -> Sequence[Disposition]:
        """Wakes a worker for each event.

        Raises:
            Unavailable: The operations cannot be read now.
        """
        return [await self._handle(event) for event in events]

    async def _handle(self, event: Event) -> Disposition:
        try:
            match = _NAME.fullmatch(event_pb2.FusionJob.FromString(event.data).operation)
        except DecodeError:
            match = None
        if match is None or event.type != EVENT_TYPE:
            _log.warning("an event is not a job", extra={"event_id": event.id, "type": event.type})
            return Disposition.DROP
        try:
            operation = await self._find(Ref(match[1], match[2]))
        except NotFound:
            # Its tenant may be gone, too.
            _log.warning("a job is of nobody", extra={"event_id": event.id, "operation": match[0]})
            return Disposition.DROP
        self._wake(operation.ticket)
        return Disposition.OK
