"""The way to one replica of an app: messages become calls of Dapr's AppCallback service."""

from __future__ import annotations

import enum
import json
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import grpc
import grpc.aio
from dapr.proto.runtime.v1 import appcallback_pb2, appcallback_pb2_grpc

from facetmesh.kit import cloudevents
from facetmesh.sidecar import events
from facetmesh.sidecar.events import EventError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from facetmesh.sidecar.queue import Pending
    from facetmesh.sidecar.resources import Subscription

_BULK_TYPE = "com.dapr.event.sent.bulk"
_OWN_FIELDS = frozenset({"id", "source", "type", "specversion", "datacontenttype", "data", "data_base64"})
_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.enable_retries", 0),  # tries are counted here
    ("grpc.max_receive_message_length", -1),
)
_Status = appcallback_pb2.TopicEventResponse


class Result(enum.Enum):
    """What became of a message."""

    HANDLED = enum.auto()
    FAILED = enum.auto()
    """The app could not handle it: it may be able to later."""
    REFUSED = enum.auto()
    """It will never be handled."""
    DIED = enum.auto()
    """The app went away while it had it."""
    NOT_TRIED = enum.auto()
    """The app does not take events from us."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a message, and why."""

    result: Result
    reason: str = ""


_HANDLED = Outcome(Result.HANDLED)
_BY_STATUS = {
    _Status.SUCCESS: _HANDLED,
    _Status.RETRY: Outcome(Result.FAILED, "the app asked for another try"),
    _Status.DROP: Outcome(Result.REFUSED, "the app dropped it"),
}
_NO_STATUS = Outcome(Result.FAILED, "the app did not say what became of it")
_BY_CODE = {
    grpc.StatusCode.UNAVAILABLE: Result.DIED,
    grpc.StatusCode.CANCELLED: Result.DIED,
    grpc.StatusCode.UNIMPLEMENTED: Result.REFUSED,
    grpc.StatusCode.UNAUTHENTICATED: Result.NOT_TRIED,
}


class AppChannel:
    """One replica of an app.

    Args:
        port: Where it listens for events, on the loopback.
        api_token: What it asks of us.
    """

    def __init__(self, port: int, api_token: str) -> None:
        self.port = port
        self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=_OPTIONS)
        self._stub = appcallback_pb2_grpc.AppCallbackStub(self._channel)
        self._alpha_stub = appcallback_pb2_grpc.AppCallbackAlphaStub(self._channel)
        self._metadata = (("dapr-api-token", api_token),) if api_token else ()

    async def ready(self) -> None:
        """Waits until the app listens."""
        await self._channel.channel_ready()

    @property
    def is_ready(self) -> bool:
        """Whether the connection stands."""
        return self._channel.get_state() is grpc.ChannelConnectivity.READY

    async def close(self) -> None:
        """Breaks the connection off."""
        await self._channel.close()

    async def deliver(self, subscription: Subscription, batch: Sequence[Pending], timeout_s: float) -> list[Outcome]:
        """Brings messages to the app; returns what became of each. Never raises for what the app does.

        Args:
            subscription: Whose messages they are.
            batch: The messages; one unless the subscription is for many at once.
            timeout_s: How long the app may take.
        """
        try:
            if subscription.bulk:
                return await self._deliver_many(subscription, batch, timeout_s)
            return [await self._deliver_one(subscription, pending, timeout_s) for pending in batch]
        except grpc.aio.AioRpcError as error:
            result = _BY_CODE.get(error.code(), Result.FAILED)
            return [Outcome(result, f"{error.code().name}: {error.details()}")] * len(batch)

    async def _deliver_one(self, subscription: Subscription, pending: Pending, timeout_s: float) -> Outcome:
        try:
            event, data = _opened(subscription, pending)
            request = appcallback_pb2.TopicEventRequest(
                data=data,
                topic=subscription.topic,
                pubsub_name=subscription.pubsub,
                path=subscription.path,
            )
            _describe(request, event)
        except (ValueError, TypeError) as error:  # what is in it may also not fit into protobuf
            return Outcome(Result.REFUSED, str(error))
        response = await self._stub.OnTopicEvent(
            request, timeout=timeout_s, metadata=(*self._metadata, *_trace_headers(event))
        )
        return _BY_STATUS.get(response.status, _NO_STATUS)

    async def _deliver_many(
        self, subscription: Subscription, batch: Sequence[Pending], timeout_s: float
    ) -> list[Outcome]:
        outcomes: dict[str, Outcome] = {}
        entries = []
        for pending in batch:
            try:
                entries.append(_entry(subscription, pending))
            except (ValueError, TypeError) as error:
                outcomes[str(pending.seq)] = Outcome(Result.REFUSED, str(error))
        if entries:
            request = appcallback_pb2.TopicEventBulkRequest(
                id=str(uuid.uuid4()),
                entries=entries,
                topic=subscription.topic,
                pubsub_name=subscription.pubsub,
                type=_BULK_TYPE,
                path=subscription.path,
            )
            for status in (await self._call_bulk(request, timeout_s)).statuses:
                outcomes[status.entry_id] = _BY_STATUS.get(status.status, _NO_STATUS)
        return [outcomes.get(str(pending.seq), _NO_STATUS) for pending in batch]

    async def _call_bulk(
        self, request: appcallback_pb2.TopicEventBulkRequest, timeout_s: float
    ) -> appcallback_pb2.TopicEventBulkResponse:
        try:
            response = await self._stub.OnBulkTopicEvent(request, timeout=timeout_s, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                raise
            alpha = self._alpha_stub
            response = await alpha.OnBulkTopicEventAlpha1(request, timeout=timeout_s, metadata=self._metadata)
        return cast("appcallback_pb2.TopicEventBulkResponse", response)


def _opened(subscription: Subscription, pending: Pending) -> tuple[dict[str, Any], bytes]:
    """The message as a CloudEvent, and its data.

    Raises:
        EventError: It is none, or its time is over.
    """
    message = pending.message
    if subscription.raw:
        name = f"{subscription.pubsub}/{subscription.topic}/{pending.seq}"
        event = events.wrapped(message, subscription.pubsub, subscription.topic, uuid.uuid5(uuid.NAMESPACE_URL, name))
        return event, message.data
    try:
        event = json.loads(message.data)
        if not isinstance(event, dict):
            raise EventError("not a CloudEvent: no JSON object")
        data = cloudevents.payload(event)
    except ValueError as error:
        raise EventError(f"not a CloudEvent: {error}") from error
    if events.has_expired(event):
        raise EventError("its time to live is over")
    return event, data


def _entry(subscription: Subscription, pending: Pending) -> appcallback_pb2.TopicEventBulkRequestEntry:
    """Raises EventError as _opened does."""
    message = pending.message
    entry = appcallback_pb2.TopicEventBulkRequestEntry(entry_id=str(pending.seq), metadata=dict(message.metadata))
    if subscription.raw:
        entry.bytes = message.data
        entry.content_type = cloudevents.BINARY
        return entry
    event, data = _opened(subscription, pending)
    entry.content_type = cloudevents.CLOUD_EVENT
    # daprd 1.18 leaves binary data out here; nobody can want that.
    entry.cloud_event.data = data
    _describe(entry.cloud_event, event)
    return entry


def _describe(
    request: appcallback_pb2.TopicEventRequest | appcallback_pb2.TopicEventCERequest, event: dict[str, Any]
) -> None:
    """Puts into a request what both forms of delivery say of an event. In place, because a copy costs as much."""
    request.id = cloudevents.text(event, "id")
    request.source = cloudevents.text(event, "source")
    request.type = cloudevents.text(event, "type")
    request.spec_version = cloudevents.text(event, "specversion")
    request.data_content_type = cloudevents.text(event, "datacontenttype")
    for name, value in event.items():
        if name in _OWN_FIELDS:
            continue
        if isinstance(value, str):  # nearly all are, and Struct's own way takes twice as long
            request.extensions.fields[name].string_value = value
        else:
            request.extensions[name] = value


def _trace_headers(event: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    parent, state = event.get("traceparent") or event.get("traceid"), event.get("tracestate")
    headers = (("traceparent", parent), ("tracestate", state))
    return tuple((name, value) for name, value in headers if isinstance(value, str) and value)
