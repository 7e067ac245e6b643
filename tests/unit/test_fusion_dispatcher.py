"""The dispatcher: finds work without being told, is fair, and leaves nothing behind."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from facetmesh.fusion import dispatcher as dispatching
from facetmesh.fusion.line import Priority, Ticket
from facetmesh.fusion.operations import LEASE_S, Ref
from facetmesh.kit.errors import Unavailable

from .fusion_jobs import World

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from facetmesh.fusion.dispatcher import Dispatcher
    from facetmesh.fusion.operations import Operation

    from .conftest import Clock

DEADLINE_S = 60


@pytest.fixture
def world(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> World:
    """A service without work, whose dispatcher looks often."""
    monkeypatch.setattr(dispatching, "SCAN_S", 0.02)
    return World(clock)


@asynccontextmanager
async def running(world: World, concurrency: int = 2) -> AsyncIterator[Dispatcher]:
    """A dispatcher at work."""
    dispatcher = world.dispatcher(concurrency)
    task = asyncio.create_task(dispatcher.run())
    try:
        yield dispatcher
    finally:
        task.cancel()
        await dispatcher.close(DEADLINE_S)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not await condition():
            await asyncio.sleep(0.002)


def cleared(world: World) -> Callable[[], Awaitable[bool]]:
    async def condition() -> bool:
        return await world.registry.store.announced() == []

    return condition


async def test_work_is_found_without_an_event_and_cleared_away(world: World) -> None:
    operations = [await world.create() for _ in range(5)]
    async with running(world):
        await until(cleared(world))
    for operation in operations:
        assert (await world.fusions.get(operation.ref)).result is not None
    assert len(world.script.fused) == len(world.recorder.records) == 5
    assert not [key for _, key in world.blobs.blobs if key.startswith("inputs/")]


async def test_an_event_is_faster_than_the_next_look(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatching, "SCAN_S", 1000)
    async with running(world) as dispatcher:
        await asyncio.sleep(0.01)
        operation = await world.create()
        dispatcher.wake(operation.ticket)
        assert (await world.fusions.wait(operation.ref, DEADLINE_S)).done


async def test_no_more_than_so_many_at_a_time(world: World) -> None:
    world.script.may_end.clear()
    operations = [await world.create() for _ in range(6)]
    async with running(world, 2):
        await world.until(lambda: world.script.running == 2)
        await asyncio.sleep(0.05)
        world.script.may_end.set()
        for operation in operations:
            await world.fusions.wait(operation.ref, DEADLINE_S)
    assert world.script.most_running == 2


async def test_a_tenant_with_much_work_does_not_make_another_wait(world: World, clock: Clock) -> None:
    many = [await world.create("acme") for _ in range(10)]
    clock.now += 1
    one = await world.create("globex")
    clock.now += 1
    world.script.may_end.clear()
    async with running(world, 2):
        await world.until(lambda: world.script.running == 2)
        assert (await world.fusions.get(one.ref)).attempts == 1
        assert sum([(await world.fusions.get(each.ref)).attempts for each in many]) == 1
        world.script.may_end.set()
        await until(cleared(world))


async def test_a_dead_workers_job_is_taken_up_when_its_lease_has_ended(world: World, clock: Clock) -> None:
    operation = await world.create()
    await world.registry.change(operation.ref, lambda found: found.claim("dead", clock.now))
    async with running(world):
        await asyncio.sleep(0.1)
        assert not (await world.fusions.get(operation.ref)).done
        clock.now += LEASE_S
        ended = await world.fusions.wait(operation.ref, DEADLINE_S)
    assert ended.result is not None
    assert ended.attempts == 2


async def test_what_died_between_its_end_and_clearing_is_cleared(world: World) -> None:
    operation = await world.create()
    await world.worker.work(operation)
    kinds = Counter(key.partition("/")[0] for _, key in world.blobs.blobs)
    assert kinds == {"inputs": 2, "progress": 2, "fusions": 1}
    async with running(world):
        await until(cleared(world))
    assert len(world.blobs.blobs) == 1


async def test_what_never_became_an_operation_is_cleared_in_time(world: World, clock: Clock) -> None:
    ref = Ref.new("acme", clock.now)
    await world.registry.store.announce(Ticket(ref))
    await world.blobs.put("acme", f"inputs/{ref.id}/source", b"source")
    async with running(world):
        await asyncio.sleep(0.1)
        assert await world.registry.store.announced() == [Ticket(ref)]
        clock.now += dispatching.ABANDONED_S + 2
        await until(cleared(world))
    assert world.blobs.blobs == {}


async def test_an_outage_of_the_store_is_survived(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.create()
    announced, fails = world.registry.store.announced, [Unavailable("gone")] * 3

    async def unsteady() -> list[Ticket]:
        if fails:
            raise fails.pop()
        return await announced()

    monkeypatch.setattr(world.registry.store, "announced", unsteady)
    async with running(world):
        await world.until(lambda: not fails)
        await until(cleared(world))


async def test_closing_lets_jobs_end(world: World) -> None:
    world.script.may_end.clear()
    operation = await world.create()
    dispatcher = world.dispatcher()
    task = asyncio.create_task(dispatcher.run())
    await world.script.began.wait()
    task.cancel()
    closing = asyncio.create_task(dispatcher.close(DEADLINE_S))
    await asyncio.sleep(0.01)
    world.script.may_end.set()
    await closing
    assert (await world.fusions.get(operation.ref)).result is not None


async def test_a_job_that_waits_knows_its_place_and_one_at_work_has_none(world: World) -> None:
    world.script.may_end.clear()
    async with running(world, 1) as dispatcher:
        first, second, third = [await woken(world, dispatcher) for _ in range(3)]
        await world.until(lambda: world.script.running == 1)
        await until(lambda: placed(dispatcher, third))
        standings = [dispatcher.standing(one.ticket) for one in (first, second, third)]
        assert [one and one.position for one in standings] == [None, 1, 2]
        assert [one and one.wait_s for one in standings] == [None] * 3
        world.script.may_end.set()
        await until(cleared(world))
        assert dispatcher.standing(third.ticket) is None
        # With the next look at the list of work, the pace is known.
        world.script.may_end.clear()
        fourth, fifth = [await woken(world, dispatcher) for _ in range(2)]
        await until(lambda: paced(dispatcher, fifth))
        standing = dispatcher.standing(fifth.ticket)
        assert standing is not None
        assert standing.wait_s is not None
        assert 0 < standing.wait_s < 60
        assert dispatcher.standing(fourth.ticket) != standing
        world.script.may_end.set()
        await until(cleared(world))


async def woken(world: World, dispatcher: Dispatcher) -> Operation:
    world.clock.now += 0.01  # ids of the same millisecond are in no order
    operation = await world.create()
    dispatcher.wake(operation.ticket)
    return operation


async def paced(dispatcher: Dispatcher, operation: Operation) -> bool:
    standing = dispatcher.standing(operation.ticket)
    return standing is not None and standing.wait_s is not None


async def placed(dispatcher: Dispatcher, operation: Operation) -> bool:
    return dispatcher.standing(operation.ticket) is not None


async def test_a_batch_job_gets_its_turn_while_more_urgent_ones_keep_coming(world: World) -> None:
    batch = await world.create(priority=Priority.BATCH)
    for _ in range(40):
        await world.create(priority=Priority.VIP)
    async with running(world, 1):
        await world.fusions.wait(batch.ref, DEADLINE_S)
    assert len(await world.registry.store.announced()) >= 20
