"""Events come in by Dapr's AppCallback service, on a port of its own that only the sidecar may use."""

from __future__ import annotations

import enum
import hmac
import json
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc
import grpc.aio
from dapr.proto.runtime.v1 import appcallback_pb2, appcallback_pb2_grpc

from facetmesh.kit import cloudevents, telemetry
from facetmesh.kit.errors import FacetmeshError, FailedPrecondition, Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.protobuf.empty_pb2 import Empty

    from facetmesh.kit.dapr.inhand import InHand

    _Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]

_HOST = "127.0.0.1"
_LARGEST_DELIVERY_BYTES = 64 << 20  # a batch of the largest events, in their envelopes
_DRAIN_S = 5.0
_TOKEN_HEADER = "dapr-api-token"  # noqa: S105 - a header's name
_log = logging.getLogger(__name__)


class Disposition(enum.Enum):
    """What becomes of an event."""

    OK = "OK"
    """It was handled, or had been before."""
    RETRY = "RETRY"
    """It could not be handled now."""
    DROP = "DROP"
    """It can never be handled: to the dead letters."""


@dataclass(frozen=True, slots=True)
class Event:
    """An event as it was published."""

    id: str
    """The publisher's; a repeat has the same."""
    type: str
    """The full name of the protobuf message in data."""
    source: str
    """The app that says it published it: proves nothing."""
    data: bytes
    traceparent: str
    """The publisher's trace, as W3C has it; "" for none."""
    topic: str


Handler: TypeAlias = Callable[[Sequence[Event]], Awaitable[Sequence[Disposition]]]
"""Handles events, one or many at once; says for each what becomes of it. What it raises means RETRY for all."""

_STATUSES = {
    Disposition.OK: appcallback_pb2.TopicEventResponse.SUCCESS,
    Disposition.RETRY: appcallback_pb2.TopicEventResponse.RETRY,
    Disposition.DROP: appcallback_pb2.TopicEventResponse.DROP,
}


def _none(topic: str, disposition: Disposition, number: int) -> None:
    """Counts nothing."""


class EventReceiver(
    appcallback_pb2_grpc.AppCallbackServicer,
    appcallback_pb2_grpc.AppCallbackAlphaServicer,
    appcallback_pb2_grpc.AppCallbackHealthCheckServicer,
):
    """Takes events from the sidecar to their handlers.

    Args:
        handlers: By topic.
        app_api_token: APP_API_TOKEN: what the sidecar must know.
        count: Is told what becomes of events: their topic, that, and of how many.
        in_hand: Recognises those that kill this process; None to leave that to the sidecar.
    """

    def __init__(
        self, handlers: Mapping[str, Handler], *, app_api_token: str,
        count: Callable[[str, Disposition, int], None] = _none, in_hand: InHand | None = None,
    ) -> None:
        self._handlers = handlers
        self._in_hand = in_hand
        self._count = count
        self._token = app_api_token.encode()
        self._server: grpc.aio.Server | None = None

    async def serve(self, port: int) -> int:
        """Starts to listen on a loopback port; 0 asks the system. Returns the port.

        Raises:
            FailedPrecondition: There is no token, so that anybody could send events.
            Unavailable: The port is taken.
        """
        if not self._token:
            raise FailedPrecondition("APP_API_TOKEN is not set.", reason="TOKEN_MISSING")
        server = grpc.aio.server(
            options=[("grpc.max_receive_message_length", _LARGEST_DELIVERY_BYTES), ("grpc.so_reuseport", 0)]
        )
        appcallback_pb2_grpc.add_AppCallbackServicer_to_server(self, server)
        appcallback_pb2_grpc.add_AppCallbackAlphaServicer_to_server(self, server)
        appcallback_pb2_grpc.add_AppCallbackHealthCheckServicer_to_server(self, server)
        try:
            bound = server.add_insecure_port(f"{_HOST}:{port}")
        except RuntimeError:
            bound = 0
        if not bound:
            raise Unavailable(f"Port {port} on {_HOST} is taken.", reason="PORT_TAKEN")
        await server.start()
        self._server = server
        return int(bound)

    async def close(self) -> None:
        """Takes no more events; waits for those in hand, for a while."""
        if self._server is not None:
            await self._server.stop(_DRAIN_S)
            self._server = None

    async def ListTopicSubscriptions(  # noqa: N802 - Dapr's name
        self, _request: Empty, _context: _Context
    ) -> appcallback_pb2.ListTopicSubscriptionsResponse:
        """None: subscriptions are declared beside the components. daprd asks without a token."""
        return appcallback_pb2.ListTopicSubscriptionsResponse()

    async def ListInputBindings(  # noqa: N802 - Dapr's name
        self, _request: Empty, _context: _Context
    ) -> appcallback_pb2.ListInputBindingsResponse:
        """None. daprd asks without a token."""
        return appcallback_pb2.ListInputBindingsResponse()

    async def HealthCheck(  # noqa: N802 - Dapr's name
        self, _request: Empty, _context: _Context
    ) -> appcallback_pb2.HealthCheckResponse:
        """Says that events can come. daprd asks without a token."""
        return appcallback_pb2.HealthCheckResponse()

    async def OnTopicEvent(  # noqa: N802 - Dapr's name
        self, request: appcallback_pb2.TopicEventRequest, context: _Context
    ) -> appcallback_pb2.TopicEventResponse:
        """An event."""
        await self._authenticate(context)
        trace = request.extensions.fields["traceparent"].string_value if "traceparent" in request.extensions else ""
        event = Event(request.id, request.type, request.source, request.data, trace, request.topic)
        (disposition,) = await self._handle(request.topic, [event])
        return appcallback_pb2.TopicEventResponse(status=_STATUSES[disposition])

    async def OnBulkTopicEvent(  # noqa: N802 - Dapr's name
        self, request: appcallback_pb2.TopicEventBulkRequest, context: _Context
    ) -> appcallback_pb2.TopicEventBulkResponse:
        """Many events."""
        await self._authenticate(context)
        response = appcallback_pb2.TopicEventBulkResponse()
        ids: list[str] = []
        events: list[Event] = []
        for entry in request.entries:
            try:
                events.append(_event(entry, request.topic))
            except ValueError as error:
                _log.error("what came is no event", extra={"topic": request.topic, "detail": str(error)})
                response.statuses.add(entry_id=entry.entry_id, status=_STATUSES[Disposition.DROP])
                self._count(request.topic, Disposition.DROP, 1)
            else:
                ids.append(entry.entry_id)
        dispositions = await self._handle(request.topic, events) if events else ()
        for entry_id, disposition in zip(ids, dispositions, strict=True):
            response.statuses.add(entry_id=entry_id, status=_STATUSES[disposition])
        return response

    OnBulkTopicEventAlpha1 = OnBulkTopicEvent

    async def _handle(self, topic: str, events: Sequence[Event]) -> Sequence[Disposition]:
        if self._in_hand is None:
            dispositions = await self._dispositions(topic, events)
        else:
            dispositions = await self._in_hand.handle(
                [event.id for event in events],
                lambda chosen: self._dispositions(topic, [events[position] for position in chosen]),
                Disposition.DROP,
            )
        for disposition, number in Counter(dispositions).items():
            self._count(topic, disposition, number)
        return dispositions

    async def _dispositions(self, topic: str, events: Sequence[Event]) -> Sequence[Disposition]:
        handler = self._handlers.get(topic)
        if handler is None:
            _log.error("nobody handles this topic", extra={"topic": topic})
            return [Disposition.DROP] * len(events)
        try:
            with telemetry.continued(f"{topic} receive", [event.traceparent for event in events]):
                dispositions = await handler(events)
        except FacetmeshError as error:
            _log.warning("events were not handled", extra={"topic": topic, "reason": error.reason})
        except Exception:  # noqa: BLE001 - whatever a handler raises, the sidecar must hear that it did not work
            _log.exception("events were not handled", extra={"topic": topic})
        else:
            if len(dispositions) == len(events):
                return dispositions
            _log.error("a handler did not say what becomes of each event", extra={"topic": topic})
        return [Disposition.RETRY] * len(events)

    async def _authenticate(self, context: _Context) -> None:
        given = dict(context.invocation_metadata() or ()).get(_TOKEN_HEADER, "")
        if not hmac.compare_digest(given if isinstance(given, bytes) else given.encode(), self._token):
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "Only the sidecar may send events.")


def _event(entry: appcallback_pb2.TopicEventBulkRequestEntry, topic: str) -> Event:
    """One of many, taken apart by the sidecar or in its envelope.

    Raises:
        ValueError: It is no CloudEvent.
    """
    if entry.HasField("cloud_event"):
        event = entry.cloud_event
        trace = event.extensions.fields["traceparent"].string_value if "traceparent" in event.extensions else ""
        return Event(event.id, event.type, event.source, event.data, trace, topic)
    envelope = json.loads(entry.bytes)
    if not isinstance(envelope, dict):
        raise ValueError("no JSON object")  # noqa: TRY004 - as for everything else that is no CloudEvent
    return Event(
        id=cloudevents.text(envelope, "id"),
        type=cloudevents.text(envelope, "type"),
        source=cloudevents.text(envelope, "source"),
        data=cloudevents.payload(envelope),
        traceparent=cloudevents.text(envelope, "traceparent"),
        topic=topic,
    )
