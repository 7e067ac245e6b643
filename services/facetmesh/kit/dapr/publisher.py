"""The sidecar's broker, for those who publish."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from dapr.proto.runtime.v1 import pubsub_pb2

from facetmesh.kit import telemetry
from facetmesh.kit.cloudevents import BINARY
from facetmesh.kit.dapr.calls import LARGEST_BYTES, check_size, our_errors
from facetmesh.kit.errors import FacetmeshError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from facetmesh.kit.dapr.calls import Client

_WHAT = "The event broker"
_ENTRY_OVERHEAD_BYTES = 512


class Outgoing(NamedTuple):
    """An event that waits to be published with others."""

    id: str
    """By which consumers recognise a repeat."""
    data: bytes
    """A serialized protobuf message."""
    trace: Mapping[str, str]
    """The W3C headers of the trace that it belongs to: each has its own."""


class Publisher:
    """Publishes CloudEvents whose data arrives byte for byte.

    Args:
        client: The sidecar.
        pubsub: The component's name.
    """

    def __init__(self, client: Client, pubsub: str) -> None:
        self._client = client
        self._pubsub = pubsub

    async def publish(self, topic: str, data: bytes, *, event_id: str, type: str) -> None:  # noqa: A002 - CloudEvents' own name
        """Publishes an event. Once this returns, it survives a crash of the sidecar.

        Args:
            topic: Where.
            data: A serialized protobuf message.
            event_id: By which consumers recognise a repeat.
            type: The message's full name.

        Raises:
            Unavailable: It was not accepted, as far as we know.
            FailedPrecondition: We may not publish there.
            InvalidArgument: The data is too large.
        """
        check_size(data)
        with our_errors(_WHAT):
            await self._client.publish_event(
                self._pubsub, topic, data,
                publish_metadata=_attributes(event_id, type, telemetry.carrier()),
                data_content_type=BINARY,
            )

    async def publish_many(self, topic: str, events: Sequence[Outgoing], *, type: str) -> list[str]:  # noqa: A002 - CloudEvents' own name
        """Publishes events; returns the ids of those that were not accepted.

        Raises:
            Unavailable: None was accepted, as far as we know.
            FailedPrecondition: We may not publish there.
            InvalidArgument: An event's data is too large.
        """
        for event in events:
            check_size(event.data)
        failed: list[str] = []
        problem: FacetmeshError | None = None
        for batch in _batches(events):
            try:
                failed += await self._publish_batch(topic, batch, type)
            except FacetmeshError as error:
                failed += [event.id for event in batch]
                problem = error
        if problem is not None and len(failed) == len(events):
            raise problem
        return failed

    async def _publish_batch(self, topic: str, events: Sequence[Outgoing], event_type: str) -> list[str]:
        request = pubsub_pb2.BulkPublishRequest(pubsub_name=self._pubsub, topic=topic)
        for event in events:
            request.entries.add(
                entry_id=event.id, event=event.data, content_type=BINARY,
                metadata=_attributes(event.id, event_type, event.trace),
            )  # fmt: skip
        with our_errors(_WHAT):
            answer = await self._client.bulk_publish(request)
        return [entry.entry_id for entry in answer.failedEntries]


def _batches(events: Sequence[Outgoing]) -> Iterator[Sequence[Outgoing]]:
    """The events in as few pieces as fit into one call each."""
    start = size = 0
    for index, event in enumerate(events):
        size += len(event.data) + _ENTRY_OVERHEAD_BYTES
        if size > LARGEST_BYTES and index > start:
            yield events[start:index]
            start, size = index, len(event.data) + _ENTRY_OVERHEAD_BYTES
    if start < len(events):
        yield events[start:]


def _attributes(event_id: str, event_type: str, trace: Mapping[str, str]) -> dict[str, str]:
    carried = {f"cloudevent.{name}": trace[name] for name in ("traceparent", "tracestate") if name in trace}
    return {"cloudevent.id": event_id, "cloudevent.type": event_type, **carried}
