"""The publish and subscribe API, as daprd has it."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import grpc
import pytest
from dapr.proto import api_v1
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from facetmesh.event.v1 import event_pb2
from facetmesh.fusion.events import EVENT_TYPE, JobEvents
from facetmesh.fusion.line import Ticket
from facetmesh.fusion.operations import Job, Operation, Ref
from facetmesh.kit.dapr import DaprSidecar, Disposition, Event, Outgoing
from facetmesh.kit.errors import FailedPrecondition, NotFound

from .harness import DEADLINE_S, Inbox, accept, until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .conftest import World

pytestmark = pytest.mark.asyncio(loop_scope="module")

ALL_BYTES = bytes(range(256))


async def test_an_event_arrives_as_it_was_published(
    world: World, two: DaprSidecar, inbox_two: Inbox, name: str
) -> None:
    """But that daprd begins a trace where there is none."""
    await two.publisher().publish("single", ALL_BYTES, event_id=name, type="facetmesh.test.v1.Thing")
    await until(lambda: name in inbox_two.ids("single"), "it arrives")
    (event,) = inbox_two.events("single", name)
    assert replace(event, traceparent="") == Event(name, "facetmesh.test.v1.Thing", "two", ALL_BYTES, "", "single")
    assert bool(event.traceparent) == world.provider.on_redis


async def test_many_events_arrive_as_they_were_published(one: DaprSidecar, inbox_two: Inbox, name: str) -> None:
    events = {f"{name}-{number}": ALL_BYTES + bytes([number]) for number in range(120)}
    outgoing = [Outgoing(event_id, data, {}) for event_id, data in events.items()]
    assert await one.publisher().publish_many("bulk", outgoing, type="facetmesh.test.v1.Thing") == []
    await until(lambda: len(inbox_two.ids("bulk", name)) == len(events), "all arrive")
    assert {event.id: event.data for event in inbox_two.events("bulk", name)} == events
    assert {event.type for event in inbox_two.events("bulk", name)} == {"facetmesh.test.v1.Thing"}
    assert {event.source for event in inbox_two.events("bulk", name)} == {"one"}
    assert max(len(call) for call in inbox_two.calls["bulk"]) > 1
    assert max(len(call) for call in inbox_two.calls["bulk"]) <= 50


async def test_a_bulk_publish_may_go_to_a_subscriber_of_single_events(
    one: DaprSidecar, inbox_two: Inbox, name: str
) -> None:
    await one.publisher().publish_many("single", [Outgoing(f"{name}-{n}", b"x", {}) for n in range(30)], type="t")
    await until(lambda: len(inbox_two.ids("single", name)) == 30, "all arrive")


async def test_every_app_that_subscribes_gets_it(
    one: DaprSidecar, inbox_one: Inbox, inbox_two: Inbox, name: str
) -> None:
    await one.publisher().publish("everybody", b"x", event_id=name, type="t")
    await until(lambda: name in inbox_one.ids("everybody") and name in inbox_two.ids("everybody"), "both have it")


async def test_of_an_apps_replicas_one_gets_it(world: World, one: DaprSidecar, inbox_two: Inbox, name: str) -> None:
    other = Inbox(world.two_again, world.provider.missed)
    await other.open()
    try:

        async def publish_more() -> None:
            for number in range(1000):
                await one.publisher().publish("single", b"x", event_id=f"{name}-{number}", type="t")
                if inbox_two.ids("single", name) and other.ids("single", name):
                    return

        await asyncio.wait_for(publish_more(), DEADLINE_S)
        inbox_two.behaviours["single"] = other.behaviours["single"] = accept
        await one.publisher().publish("single", b"x", event_id=f"{name}-last", type="t")

        def seen() -> list[str]:
            return inbox_two.ids("single", name) + other.ids("single", name)

        await until(lambda: f"{name}-last" in seen(), "the last arrives")
        assert len(seen()) == len(set(seen()))
    finally:
        await other.close()


async def test_what_could_not_be_handled_comes_again(one: DaprSidecar, inbox_two: Inbox, name: str) -> None:
    async def third_time(events: Sequence[Event]) -> Sequence[Disposition]:
        tries = inbox_two.ids("single").count(name)
        return [Disposition.RETRY if event.id == name and tries < 3 else Disposition.OK for event in events]

    inbox_two.behaviours["single"] = third_time
    await one.publisher().publish("single", b"x", event_id=name, type="t")
    await until(lambda: inbox_two.ids("single").count(name) == 3, "three tries")
    await one.publisher().publish("single", b"x", event_id=f"after-{name}", type="t")
    await until(lambda: f"after-{name}" in inbox_two.ids("single"), "the queue goes on")
    assert inbox_two.ids("single").count(name) == 3


async def test_what_cannot_be_handled_goes_to_the_dead_letters(
    one: DaprSidecar, inbox_one: Inbox, inbox_two: Inbox, name: str
) -> None:
    async def never(events: Sequence[Event]) -> Sequence[Disposition]:
        return [Disposition.RETRY if event.id == name else Disposition.OK for event in events]

    inbox_two.behaviours["single"] = never
    await one.publisher().publish("single", ALL_BYTES, event_id=name, type="t")
    await until(lambda: name in inbox_one.ids("single.dead"), "it is given up")
    assert inbox_two.ids("single").count(name) == 3  # once, and twice more
    (event,) = inbox_one.events("single.dead", name)
    assert event.data == ALL_BYTES


async def test_a_handler_that_raises_is_a_failure(
    one: DaprSidecar, inbox_one: Inbox, inbox_two: Inbox, name: str
) -> None:
    async def breaks(events: Sequence[Event]) -> Sequence[Disposition]:
        if any(event.id == name for event in events):
            raise RuntimeError("broken")
        return await accept(events)

    inbox_two.behaviours["single"] = breaks
    await one.publisher().publish("single", b"x", event_id=name, type="t")
    await until(lambda: name in inbox_one.ids("single.dead"), "it is given up")


async def test_a_handler_that_takes_too_long_is_a_failure(
    one: DaprSidecar, inbox_one: Inbox, inbox_two: Inbox, name: str
) -> None:
    never = asyncio.Event()

    async def hangs(events: Sequence[Event]) -> Sequence[Disposition]:
        if any(event.id == name for event in events):
            await never.wait()
        return await accept(events)

    inbox_two.behaviours["single"] = hangs
    await one.publisher().publish("single", b"x", event_id=name, type="t")
    await until(lambda: name in inbox_one.ids("single.dead"), "it is given up")


async def test_what_is_dropped_goes_to_the_dead_letters_at_once(
    one: DaprSidecar, inbox_one: Inbox, inbox_two: Inbox, name: str
) -> None:
    async def drops(events: Sequence[Event]) -> Sequence[Disposition]:
        return [Disposition.DROP if event.id == name else Disposition.OK for event in events]

    inbox_two.behaviours["single"] = drops
    await one.publisher().publish("single", b"x", event_id=name, type="t")
    await until(lambda: name in inbox_one.ids("single.dead"), "it is given up")
    assert inbox_two.ids("single").count(name) == 1


async def test_of_many_only_those_come_again_that_failed(
    one: DaprSidecar, inbox_one: Inbox, inbox_two: Inbox, name: str
) -> None:
    bad, dropped = f"{name}-3", f"{name}-7"

    async def partly(events: Sequence[Event]) -> Sequence[Disposition]:
        verdicts = {bad: Disposition.RETRY, dropped: Disposition.DROP}
        return [verdicts.get(event.id, Disposition.OK) for event in events]

    inbox_two.behaviours["bulk"] = partly
    await one.publisher().publish_many("bulk", [Outgoing(f"{name}-{n}", b"x", {}) for n in range(20)], type="t")
    await until(lambda: {bad, dropped} <= set(inbox_one.ids("bulk.dead", name)), "two are given up")
    await until(lambda: len(set(inbox_two.ids("bulk", name))) == 20, "all came")
    times = {event_id: inbox_two.ids("bulk").count(event_id) for event_id in inbox_two.ids("bulk", name)}
    assert times == {f"{name}-{n}": 3 if n == 3 else 1 for n in range(20)}
    assert sorted(inbox_one.ids("bulk.dead", name)) == [bad, dropped]


async def test_what_is_no_event_is_buried_and_the_queue_goes_on(
    world: World, one: DaprSidecar, inbox_two: Inbox, name: str
) -> None:
    """Raw bytes where CloudEvents are expected."""
    raw = b"\xff\x00 no JSON " + name.encode()
    async with world.one.stub() as stub:
        for topic in ("single", "bulk"):
            request = api_v1.PublishEventRequest(
                pubsub_name="pubsub", topic=topic, data=raw, metadata={"rawPayload": "true"}
            )
            await stub.PublishEvent(request, metadata=world.one.metadata)
    for topic in ("single", "bulk"):
        await one.publisher().publish(topic, b"x", event_id=name, type="t")
    await until(lambda: name in inbox_two.ids("single") and name in inbox_two.ids("bulk"), "the queues go on")
    for topic in ("single.dead", "bulk.dead"):
        await until(
            lambda topic=topic: any(raw in event.data for event in inbox_two.events(topic)), f"it is in {topic}"
        )


async def test_hostile_events_are_buried_and_counted_and_the_queue_goes_on(
    one: DaprSidecar, inbox_one: Inbox, inbox_two: Inbox, name: str
) -> None:
    """As a service of ours meets them: fusion, which expects jobs."""
    woken: list[Ticket] = []

    async def find(ref: Ref) -> Operation:
        if ref.tenant_id == "gone":
            raise NotFound("No such operation.", reason="NOT_FOUND")
        return Operation(ref.tenant_id, ref.id, Job("", "", "", 0, 0), 0.0)

    jobs = JobEvents(one.publisher(), woken.append, find)
    inbox_two.behaviours["single"] = jobs.handle
    inbox_two.counted.clear()

    def job(operation: str) -> bytes:
        return event_pb2.FusionJob(operation=operation).SerializeToString()

    good = job(f"tenants/acme/operations/{name}")
    hostile = {
        f"{name}-type": ("facetmesh.event.v1.Nonsense", good),
        f"{name}-data": (EVENT_TYPE, b"\xff no protobuf"),
        f"{name}-empty": (EVENT_TYPE, b""),
        f"{name}-large": (EVENT_TYPE, bytes(2 << 20)),
        f"{name}-path": (EVENT_TYPE, job("tenants/../x")),
        f"{name}-gone": (EVENT_TYPE, job(f"tenants/gone/operations/{name}")),
    }
    for event_id, (kind, data) in hostile.items():
        await one.publisher().publish("single", data, event_id=event_id, type=kind)
    await one.publisher().publish("single", good, event_id=f"{name}-good", type=EVENT_TYPE)
    await until(lambda: set(hostile) <= set(inbox_one.ids("single.dead", name)), "all that is hostile is given up")
    await until(lambda: woken == [Ticket(Ref("acme", name))], "the job is heard of")
    assert {event.id: event.data for event in inbox_one.events("single.dead", name)} == {
        event_id: data for event_id, (_, data) in hostile.items()
    }
    assert inbox_two.counted["single", Disposition.DROP] == len(hostile)


async def test_raw_bytes_arrive_as_they_are(world: World, inbox_two: Inbox, name: str) -> None:
    data = name.encode() + ALL_BYTES
    async with world.one.stub() as stub:
        request = api_v1.PublishEventRequest(
            pubsub_name="pubsub", topic="raw", data=data, metadata={"rawPayload": "true"}
        )
        await stub.PublishEvent(request, metadata=world.one.metadata)
    await until(lambda: any(event.data == data for event in inbox_two.events("raw")), "it arrives")


async def test_the_envelope_is_a_cloud_event(world: World, inbox_two: Inbox, name: str) -> None:
    """A raw subscription shows what is between publisher and subscriber."""
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    attributes = {"id": name, "type": "a.Type", "source": "elsewhere", "subject": "it", "traceparent": parent}
    async with world.one.stub() as stub:
        request = api_v1.PublishEventRequest(
            pubsub_name="pubsub", topic="raw", data=ALL_BYTES, data_content_type="application/octet-stream",
            metadata={f"cloudevent.{key}": value for key, value in attributes.items()},
        )  # fmt: skip
        await stub.PublishEvent(request, metadata=world.one.metadata)
    await until(lambda: any(name.encode() in event.data for event in inbox_two.events("raw")), "it arrives")
    (event,) = [json.loads(event.data) for event in inbox_two.events("raw") if name.encode() in event.data]
    assert event.pop("time")
    assert event.pop("tracestate", "") == ""
    assert event == {
        **attributes,
        "specversion": "1.0",
        "datacontenttype": "application/octet-stream",
        "topic": "raw",
        "pubsubname": "pubsub",
        "traceid": parent,
        "data_base64": base64.b64encode(ALL_BYTES).decode(),
    }


@pytest.mark.parametrize(
    ("content_type", "data", "arrives"),
    [
        ("", b"text", b"text"),
        ("text/plain; charset=utf-8", "gr\u00fcn".encode(), "gr\u00fcn".encode()),
        ("application/json", b'{"a": [1, 2.5, null]}', b'{"a":[1,2.5,null]}'),
        ("application/octet-stream", ALL_BYTES, ALL_BYTES),
    ],
)
async def test_data_of_each_kind_arrives(
    world: World, inbox_two: Inbox, name: str, content_type: str, data: bytes, arrives: bytes
) -> None:
    async with world.one.stub() as stub:
        request = api_v1.PublishEventRequest(
            pubsub_name="pubsub", topic="single", data=data, data_content_type=content_type,
            metadata={"cloudevent.id": name},
        )  # fmt: skip
        await stub.PublishEvent(request, metadata=world.one.metadata)
    await until(lambda: name in inbox_two.ids("single"), "it arrives")
    (event,) = inbox_two.events("single", name)
    assert (event.data, event.type) == (arrives, "com.dapr.event.sent")


async def test_a_cloud_event_of_the_publishers_own_arrives(world: World, inbox_two: Inbox, name: str) -> None:
    own = {"specversion": "1.0", "id": name, "type": "own", "source": "me", "data_base64": "AAH/"}
    async with world.one.stub() as stub:
        request = api_v1.PublishEventRequest(
            pubsub_name="pubsub", topic="single", data=json.dumps(own).encode(),
            data_content_type="application/cloudevents+json",
        )  # fmt: skip
        await stub.PublishEvent(request, metadata=world.one.metadata)
    await until(lambda: name in inbox_two.ids("single"), "it arrives")
    (event,) = inbox_two.events("single", name)
    assert (event.data, event.type, event.source) == (b"\x00\x01\xff", "own", "me")


async def test_the_publishers_trace_is_carried(one: DaprSidecar, inbox_two: Inbox, name: str) -> None:
    context = SpanContext(0xAF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331, is_remote=False,
                          trace_flags=TraceFlags(1))  # fmt: skip
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with trace.use_span(NonRecordingSpan(context)):
        await one.publisher().publish("single", b"x", event_id=f"{name}-s", type="t")
        await one.publisher().publish_many("bulk", [Outgoing(f"{name}-b", b"x", {"traceparent": parent})], type="t")
    await until(lambda: bool(inbox_two.ids("single", name) and inbox_two.ids("bulk", name)), "both arrive")
    for topic in ("single", "bulk"):
        (event,) = inbox_two.events(topic, name)
        assert event.traceparent == parent


async def test_what_has_a_time_to_live_is_not_delivered_after_it(
    world: World, one: DaprSidecar, inbox_two: Inbox, name: str
) -> None:
    await inbox_two.close()
    try:
        async with world.one.stub() as stub:
            request = api_v1.PublishEventRequest(
                pubsub_name="pubsub", topic="single", data=b"x",
                metadata={"cloudevent.id": f"{name}-late", "ttlInSeconds": "1"},
            )  # fmt: skip
            await stub.PublishEvent(request, metadata=world.one.metadata)
        ends = time.time() + 1.1
        await until(lambda: time.time() > ends, "its time is over")
    finally:
        await inbox_two.open()
    await one.publisher().publish("single", b"x", event_id=f"{name}-last", type="t")
    await until(lambda: f"{name}-last" in inbox_two.ids("single"), "the queue goes on")
    assert inbox_two.ids("single", name) == [f"{name}-last"]


async def test_events_wait_for_an_app_that_is_not_there(one: DaprSidecar, inbox_two: Inbox, name: str) -> None:
    await inbox_two.close()
    try:
        await one.publisher().publish_many("single", [Outgoing(f"{name}-{n}", b"x", {}) for n in range(20)], type="t")
    finally:
        await inbox_two.open()
    await until(lambda: len(set(inbox_two.ids("single", name))) == 20, "all arrive")


@pytest.mark.parametrize(
    ("pubsub", "topic", "code"),
    [
        ("pubsub", "", grpc.StatusCode.INVALID_ARGUMENT),
        ("", "single", grpc.StatusCode.INVALID_ARGUMENT),
        ("nowhere", "single", grpc.StatusCode.INVALID_ARGUMENT),
        ("pubsub", "guarded", grpc.StatusCode.PERMISSION_DENIED),
    ],
)
async def test_what_cannot_be_published(world: World, pubsub: str, topic: str, code: grpc.StatusCode) -> None:
    single = api_v1.PublishEventRequest(pubsub_name=pubsub, topic=topic, data=b"x")
    entry = api_v1.BulkPublishRequestEntry(entry_id="1", event=b"x")
    many = api_v1.BulkPublishRequest(pubsub_name=pubsub, topic=topic, entries=[entry])
    async with world.one.stub() as stub:
        for call in (
            stub.PublishEvent(single, metadata=world.one.metadata),
            stub.BulkPublishEvent(many, metadata=world.one.metadata),
            stub.BulkPublishEventAlpha1(many, metadata=world.one.metadata),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert caught.value.code() is code


async def test_an_app_publishes_where_it_may(one: DaprSidecar, two: DaprSidecar, name: str) -> None:
    await two.publisher().publish("guarded", b"x", event_id=name, type="t")
    with pytest.raises(FailedPrecondition):
        await one.publisher().publish("guarded", b"x", event_id=name, type="t")
    with pytest.raises(FailedPrecondition):
        await two.publisher().publish("bulk", b"x", event_id=name, type="t")


async def test_entries_need_ids_of_their_own(world: World) -> None:
    async with world.one.stub() as stub:
        for ids in (["1", "1"], [""]):
            entries = [api_v1.BulkPublishRequestEntry(entry_id=entry_id, event=b"x") for entry_id in ids]
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.BulkPublishEvent(
                    api_v1.BulkPublishRequest(pubsub_name="pubsub", topic="bulk", entries=entries),
                    metadata=world.one.metadata,
                )
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_large_events_travel_in_pieces(one: DaprSidecar, inbox_two: Inbox, name: str) -> None:
    """Together they are far beyond what one call can carry."""
    events = [Outgoing(f"{name}-{n}", bytes([n]) * 1_500_000, {}) for n in range(6)]
    assert await one.publisher().publish_many("bulk", events, type="t") == []
    await until(lambda: len(inbox_two.ids("bulk", name)) == 6, "all arrive")
    arrived = {event.id: event.data for event in inbox_two.events("bulk", name)}
    assert arrived == {event.id: event.data for event in events}
