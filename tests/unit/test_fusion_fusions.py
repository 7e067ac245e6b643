"""What callers do with fusions: ask, ask again, wait, cancel, fetch."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from facetmesh.fusion import registry
from facetmesh.fusion.operations import Ref, Stage
from facetmesh.kit.errors import AlreadyExists, FailedPrecondition, NotFound, Unavailable

from .fusion_jobs import World, sha256

if TYPE_CHECKING:
    from .conftest import Clock

REQUEST = "2f9b6c1e-0000-4000-8000-000000000001"


@pytest.fixture
def world(clock: Clock) -> World:
    """A service without work."""
    return World(clock)


async def test_an_acknowledged_fusion_has_its_inputs_and_its_place_in_the_queue(world: World) -> None:
    operation = await world.create()
    assert sorted(world.blobs.blobs.values()) == [b"source", b"target"]
    assert operation.job.source_sha256 == sha256(b"source")
    assert (await world.fusions.get(operation.ref)).stage is Stage.QUEUED
    assert await world.registry.store.announced() == [operation.ticket] == world.woken


async def test_nothing_is_acknowledged_when_the_inputs_cannot_be_kept(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: object) -> None:
        raise Unavailable("The disk is full.")

    monkeypatch.setattr(world.blobs, "put", full)
    with pytest.raises(Unavailable):
        await world.create()
    (ticket,) = await world.registry.store.announced()
    assert await world.registry.store.get(ticket.ref) is None


async def test_a_repeated_request_is_the_same_operation(world: World) -> None:
    first = await world.create(request_id=REQUEST)
    second = await world.create(request_id=REQUEST)
    assert second.id == first.id
    assert await world.fusions.ids("acme") == [first.id]
    with pytest.raises(AlreadyExists) as refusal:
        await world.create(request_id=REQUEST, target=b"another")
    assert refusal.value.reason == "REQUEST_ID_REUSED"
    assert (await world.create()).id != first.id


async def test_a_request_that_died_half_way_can_be_repeated(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    put = world.blobs.put

    async def dies(*_: object) -> None:
        raise Unavailable("gone")

    monkeypatch.setattr(world.blobs, "put", dies)
    with pytest.raises(Unavailable):
        await world.create(request_id=REQUEST)
    monkeypatch.setattr(world.blobs, "put", put)
    operation = await world.create(request_id=REQUEST)
    assert await world.registry.store.announced() == [operation.ticket]


async def test_equal_requests_at_once_are_one_operation(world: World) -> None:
    made = await asyncio.gather(*(world.create(request_id=REQUEST) for _ in range(5)))
    assert len({operation.id for operation in made}) == 1
    assert len(await world.fusions.ids("acme")) == 1


async def test_lists_begin_with_the_newest(world: World, clock: Clock) -> None:
    ids = []
    for _ in range(3):
        ids.append((await world.create()).id)
        clock.now += 1
    await world.create("globex")
    assert await world.fusions.ids("acme") == ids[::-1]


async def test_waiting_ends_with_the_operation_and_not_by_polling(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "REREAD_S", 60.0)
    operation = await world.create()
    waiting = asyncio.create_task(world.fusions.wait(operation.ref, 30))
    await asyncio.sleep(0)
    await world.worker.work(operation)
    async with asyncio.timeout(60):
        assert (await waiting).done


async def test_waiting_notices_what_another_replica_did(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("facetmesh.fusion.registry.REREAD_S", 0.01)
    operation = await world.create()
    waiting = asyncio.create_task(world.fusions.wait(operation.ref, 30))
    await asyncio.sleep(0)
    elsewhere = World(world.clock)
    elsewhere.registry.store = world.registry.store
    await elsewhere.fusions.cancel(operation.ref)
    assert (await waiting).done


async def test_waiting_returns_at_its_timeout(world: World) -> None:
    operation = await world.create()
    assert not (await world.fusions.wait(operation.ref, 0)).done
    assert not (await world.fusions.wait(operation.ref, 0.05)).done
    assert not world.registry._listening


async def test_unknown_operations_and_fusions_are_not_found(world: World) -> None:
    nobody = Ref("acme", "0" * 32)
    for call in (world.fusions.get, world.fusions.cancel, world.fusions.download):
        with pytest.raises(NotFound):
            await call(nobody)
    with pytest.raises(NotFound):
        await world.fusions.wait(nobody, 1)
    operation = await world.create()
    with pytest.raises(NotFound):
        await world.fusions.get(Ref("globex", operation.id))


async def test_a_fusion_is_fetched_once_it_is_there(world: World) -> None:
    operation = await world.create()
    with pytest.raises(FailedPrecondition) as refusal:
        await world.fusions.download(operation.ref)
    assert refusal.value.reason == "FUSION_NOT_READY"
    ended = await world.worker.work(operation)
    assert ended.result is not None
    media_type, content = await world.fusions.download(operation.ref)
    assert (media_type, sha256(content)) == (ended.result.media_type, ended.result.sha256)


async def test_a_deleted_fusion_is_gone_and_still_answered_for(world: World) -> None:
    operation = await world.create()
    with pytest.raises(FailedPrecondition) as early:
        await world.fusions.delete(operation.ref)
    assert early.value.reason == "FUSION_NOT_READY"
    ended = await world.worker.work(operation)
    await world.worker.clear(ended)
    assert ended.result is not None
    for _ in range(2):
        await world.fusions.delete(operation.ref)
        assert world.blobs.blobs == {}
        with pytest.raises(NotFound):
            await world.fusions.download(operation.ref)
    (match,) = await world.lookups.find("acme", sha256=ended.result.sha256)
    assert match.operation.deleted_s == world.clock.now


async def test_what_failed_cannot_be_deleted(world: World) -> None:
    operation = await world.create()
    await world.fusions.cancel(operation.ref)
    with pytest.raises(NotFound):
        await world.fusions.delete(operation.ref)


async def test_who_follows_hears_of_each_stage(world: World) -> None:
    operation = await world.create()
    world.script.may_end.clear()
    working = asyncio.create_task(world.worker.work(operation))
    await world.script.began.wait()
    stages = []
    async with asyncio.timeout(60):
        async for now in world.fusions.follow(operation.ref):
            stages.append(now.stage)
            world.script.may_end.set()
    assert (stages[0], stages[-1]) == (Stage.FUSING, Stage.DONE)
    await working


async def test_a_cancelled_fusion_is_not_there(world: World) -> None:
    operation = await world.create()
    cancelled = await world.fusions.cancel(operation.ref)
    assert cancelled.failure is not None
    assert cancelled.failure.reason == "OPERATION_CANCELLED"
    assert world.woken == [operation.ticket, operation.ticket]
    with pytest.raises(NotFound):
        await world.fusions.download(operation.ref)
