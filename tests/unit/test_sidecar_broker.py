"""Queues on the disk: who gets what, what becomes of what nobody takes, and of a full disk."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, cast

import grpc
import pytest
from dapr.proto import api_v1, common_v1

from facetmesh.kit.store import Store
from facetmesh.sidecar import mesh, queue, state
from facetmesh.sidecar.app import App
from facetmesh.sidecar.broker import Broker
from facetmesh.sidecar.channel import AppChannel
from facetmesh.sidecar.delivery import Delivery, Terms
from facetmesh.sidecar.errors import ApiError
from facetmesh.sidecar.events import Published
from facetmesh.sidecar.metrics import Metrics
from facetmesh.sidecar.resources import Subscription
from facetmesh.sidecar.retry import NEVER
from facetmesh.sidecar.schema import PubsubSettings
from facetmesh.sidecar.servicer import DaprServicer
from facetmesh.sidecar.state import StateStore

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator
    from pathlib import Path

SUBSCRIPTION = Subscription("pubsub", "topic", "/", frozenset({"reader"}), dead_letter_topic="topic.dead")
NOBODYS = Subscription("pubsub", "else", "/", frozenset({"reader"}))


class _NoHeaders:
    """As much of gRPC's context as the servicer looks at."""

    def invocation_metadata(self) -> tuple[()]:
        return ()


_CONTEXT = cast("grpc.aio.ServicerContext[Any, Any]", _NoHeaders())


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "file.db", state.SCHEMA + queue.SCHEMA)
    yield store
    store.close()


def _broker(store: Store, *subscriptions: Subscription, most: int = 10) -> Broker:
    settings = PubsubSettings.model_validate({"connectionString": "file.db", "maxLenApprox": most})
    return Broker("pubsub", settings, store, ["reader", "writer"], subscriptions)


def _published(count: int) -> list[Published]:
    return [Published(str(number).encode()) for number in range(count)]


def _data(message: bytes) -> str:
    return str(json.loads(message)["data"])


async def _stored(store: Store) -> list[tuple[str, str, str]]:
    def read(connection: sqlite3.Connection) -> list[tuple[str, str, str]]:
        rows = connection.execute("SELECT app, topic, data FROM messages ORDER BY seq")
        return [(app, topic, _data(data)) for app, topic, data in rows]

    return await store.run(read)


async def test_messages_come_in_the_order_in_which_they_were_published(store: Store) -> None:
    broker = _broker(store, SUBSCRIPTION)
    await broker.publish("writer", "topic", _published(1500))  # more than are held in memory
    (one,) = broker.subscribed
    seen: list[str] = []
    while len(seen) < 1500:
        batch = await one.queue.take(100)
        seen += [_data(pending.message.data) for pending in batch]
        await one.queue.done(batch)
    assert seen == [str(number) for number in range(1500)]
    assert await _stored(store) == []


async def test_who_gives_up_while_publishing_leaves_nothing_lying(store: Store) -> None:
    broker = _broker(store, SUBSCRIPTION)
    messages = broker.subscribed[0].queue
    await broker.publish("writer", "topic", _published(1))
    await messages.done(await messages.take(1))
    taking = asyncio.create_task(messages.take(1))
    publishing = asyncio.create_task(broker.publish("writer", "topic", _published(1)))
    await asyncio.sleep(0)
    publishing.cancel()
    (pending,) = await asyncio.wait_for(taking, 60)
    assert _data(pending.message.data) == "0"


async def test_what_was_taken_and_not_settled_is_there_for_the_next_process(store: Store) -> None:
    broker = _broker(store, SUBSCRIPTION)
    await broker.publish("writer", "topic", _published(3))
    taken = await broker.subscribed[0].queue.take(3)
    await broker.subscribed[0].queue.done(taken[1:2])
    again = await _broker(store, SUBSCRIPTION).subscribed[0].queue.take(3)
    assert [_data(pending.message.data) for pending in again] == ["0", "2"]


async def test_what_was_put_back_comes_first_and_what_was_put_off_later(store: Store) -> None:
    broker = _broker(store, SUBSCRIPTION)
    await broker.publish("writer", "topic", _published(4))
    messages = broker.subscribed[0].queue
    first, second = await messages.take(2)
    messages.put_off(first, 1)
    messages.put_back([second])
    order = [_data((await messages.take(1))[0].message.data) for _ in range(4)]
    assert order == ["1", "2", "3", "0"]


async def test_a_batch_waits_for_company_only_so_long(store: Store) -> None:
    broker = _broker(store, SUBSCRIPTION)
    messages = broker.subscribed[0].queue
    await broker.publish("writer", "topic", _published(1))
    assert len(await asyncio.wait_for(messages.take(2, patience_s=300), 60)) == 1  # after a pause: at once
    taking = asyncio.create_task(messages.take(2, patience_s=300))
    await broker.publish("writer", "topic", _published(1))
    await broker.publish("writer", "topic", _published(1))
    assert len(await asyncio.wait_for(taking, 60)) == 2  # full: no need to wait
    await broker.publish("writer", "topic", _published(1))
    assert len(await asyncio.wait_for(messages.take(2, patience_s=0.05), 60)) == 1


async def test_those_who_take_from_one_queue_have_their_turns(store: Store) -> None:
    broker = _broker(store, SUBSCRIPTION)
    messages = broker.subscribed[0].queue
    taking = [asyncio.create_task(messages.take(1)) for _ in range(3)]
    await broker.publish("writer", "topic", _published(2))
    taken = [await asyncio.wait_for(one, 60) for one in taking[:2]]
    assert [_data(pending.message.data) for (pending,) in taken] == ["0", "1"]
    taking[2].cancel()  # who gives up keeps no turn
    messages.put_back(taken[0])
    assert await asyncio.wait_for(messages.take(1), 60) == taken[0]


async def test_who_is_behind_does_not_wait_for_more(store: Store) -> None:
    broker = _broker(store, SUBSCRIPTION)
    messages = broker.subscribed[0].queue
    await broker.publish("writer", "topic", _published(1))
    assert len(await asyncio.wait_for(messages.take(256, patience_s=300), 60)) == 1
    await broker.publish("writer", "topic", _published(900))  # more than are looked at at once
    taken = [len(await asyncio.wait_for(messages.take(256, patience_s=300), 60)) for _ in range(3)]
    assert taken == [256, 256, 256]


async def test_what_nobody_subscribes_to_is_kept_up_to_a_limit_and_given_to_who_comes(store: Store) -> None:
    broker = _broker(store, most=10)
    await broker.publish("writer", "topic", _published(25))
    await broker.publish("writer", "else", _published(5))
    await broker.tidy()
    kept = [data for app, topic, data in await _stored(store) if (app, topic) == ("", "topic")]
    assert kept == [str(number) for number in range(15, 25)]
    later = _broker(store, SUBSCRIPTION)
    await later.start()
    assert len(await later.subscribed[0].queue.take(25)) == 10
    assert [topic for app, topic, _ in await _stored(store) if app == ""] == ["else"] * 5


async def test_a_dead_letter_has_its_reason(store: Store) -> None:
    broker = _broker(store, SUBSCRIPTION)
    await broker.publish("writer", "topic", _published(1))
    (one,) = broker.subscribed
    await broker.bury(one, (await one.queue.take(1))[0], "it was no good")
    assert await _stored(store) == [("", "topic.dead", "0")]
    row = await store.run(lambda connection: connection.execute("SELECT metadata FROM messages").fetchone())
    assert json.loads(row[0]) == {
        "deadletterreason": "it was no good", "deadlettertopic": "topic", "deadletterapp": "reader",
    }  # fmt: skip


async def test_room_is_given_back(store: Store) -> None:
    broker = _broker(store, SUBSCRIPTION)
    await broker.publish("writer", "topic", [Published(b"x" * 10_000) for _ in range(100)])
    one = broker.subscribed[0].queue
    for _ in range(10):
        await one.done(await one.take(10))
    before = await store.run(lambda connection: connection.execute("PRAGMA page_count").fetchone()[0])
    await store.run(mesh._vacuum)
    after = await store.run(lambda connection: connection.execute("PRAGMA page_count").fetchone()[0])
    assert before > 250
    assert after < 20


async def test_a_full_disk_is_told_and_ends(store: Store) -> None:
    broker = _broker(store, SUBSCRIPTION)
    servicer = DaprServicer(App("writer", {"state": StateStore(store)}, {"pubsub": broker}), Metrics.create())
    large = b"x" * (1 << 20)
    calls = (
        lambda: servicer.SaveState(
            api_v1.SaveStateRequest(store_name="state", states=[common_v1.StateItem(key="k", value=large)]), _CONTEXT
        ),
        lambda: servicer.PublishEvent(
            api_v1.PublishEventRequest(pubsub_name="pubsub", topic="topic", data=large), _CONTEXT
        ),
        lambda: servicer.BulkPublishEvent(
            api_v1.BulkPublishRequest(
                pubsub_name="pubsub", topic="topic", entries=[api_v1.BulkPublishRequestEntry(entry_id="1", event=large)]
            ),
            _CONTEXT,
        ),
    )
    pages = await store.run(lambda connection: connection.execute("PRAGMA page_count").fetchone()[0])
    await store.run(lambda connection: connection.execute(f"PRAGMA max_page_count = {pages + 4}").fetchone())
    for call in calls:
        with pytest.raises(ApiError) as caught:
            await call()
        assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await _stored(store) == []
    await store.run(lambda connection: connection.execute("PRAGMA max_page_count = 100000").fetchone())
    for call in calls:
        await call()
    assert len(await _stored(store)) == 2


async def test_an_app_that_refuses_our_token_loses_nothing(store: Store) -> None:
    broker = _broker(store, SUBSCRIPTION)
    await broker.publish("writer", "topic", _published(3))
    calls = 0

    async def refuse(_request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        nonlocal calls
        calls += 1
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you?")

    server = grpc.aio.server()
    handlers: dict[str, Any] = {"OnTopicEvent": grpc.unary_unary_rpc_method_handler(refuse)}
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("dapr.proto.runtime.v1.AppCallback", handlers),)
    )
    channel = AppChannel(server.add_insecure_port("127.0.0.1:0"), "wrong")
    await server.start()
    delivery = Delivery(
        broker, broker.subscribed[0], channel, Terms(NEVER, timeout_s=60, concurrency=2), Metrics.create()
    )
    running = asyncio.create_task(delivery.run())
    async with asyncio.timeout(60):
        while calls < 3:
            await asyncio.sleep(0.01)
    delivery.stop()
    await running
    await channel.close()
    await server.stop(None)
    assert [topic for _, topic, _ in await _stored(store)] == ["topic"] * 3
