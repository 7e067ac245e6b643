"""Revocations reach all who watch, whichever replica of auth took them in."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from facetmesh.auth import revocations
from facetmesh.auth.revocations import RevocationLog
from facetmesh.auth.store import DaprStore
from facetmesh.kit.errors import Unavailable
from facetmesh.kit.revocations import KEEP_S, News, Revocation

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from .conftest import Clock, MemoryState

Replica = tuple[RevocationLog, asyncio.Event, list[Revocation]]


@pytest.fixture
def replica(state: MemoryState, clock: Clock) -> Callable[[], Replica]:
    """Makes replicas over one state: each with what stops it, and what it announced."""

    def make() -> Replica:
        announced: list[Revocation] = []
        stopping = asyncio.Event()

        async def announce(one: Revocation) -> None:
            announced.append(one)

        store: Any = DaprStore(state)  # type: ignore[arg-type]
        return RevocationLog(store, announce, clock, stopping), stopping, announced

    return make


async def names(watch: AsyncIterator[News], count: int) -> list[str]:
    """Whose the next revocations are."""
    found: list[str] = []
    async with asyncio.timeout(60):
        while len(found) < count:
            found += [one.name for one in (await anext(watch)).revocations]
    return found


async def test_every_replica_tells_what_any_of_them_took_in(replica: Callable[[], Replica], clock: Clock) -> None:
    (one, _, announced), (other, _, _) = replica(), replica()
    watches = [log.revocations(0) for log in (one, other, other)]
    for watch in watches:
        assert await anext(watch) == News((), 0)
    await one.add("tenants/acme", clock.now)
    await one.add("tenants/globex/keys/k1", clock.now)
    for watch in watches:
        assert await names(watch, 2) == ["tenants/acme", "tenants/globex/keys/k1"]
    assert [(r.name, r.sequence) for r in announced] == [("tenants/acme", 1), ("tenants/globex/keys/k1", 2)]


async def test_who_comes_back_hears_what_he_missed_and_no_more(replica: Callable[[], Replica], clock: Clock) -> None:
    log, _, _ = replica()
    await log.add("tenants/a", clock.now)
    await log.add("tenants/b", clock.now)
    news = await anext(log.revocations(1))
    assert ([r.name for r in news.revocations], news.sequence) == (["tenants/b"], 2)
    # The store was set back meanwhile.
    news = await anext(log.revocations(77))
    assert ([r.name for r in news.revocations], news.sequence) == (["tenants/a", "tenants/b"], 2)


async def test_what_no_token_is_left_for_is_forgotten(replica: Callable[[], Replica], clock: Clock) -> None:
    log, _, _ = replica()
    await log.add("tenants/a", clock.now)
    clock.now += KEEP_S
    await log.add("tenants/b", clock.now)
    news = await anext(replica()[0].revocations(0))
    assert ([r.name for r in news.revocations], news.sequence) == (["tenants/b"], 2)


async def test_a_repeat_takes_the_place_of_the_first_and_is_told_again(
    replica: Callable[[], Replica], clock: Clock
) -> None:
    log, _, _ = replica()
    watch = log.revocations(0)
    await log.add("tenants/a", clock.now)
    assert await names(watch, 1) == ["tenants/a"]
    await log.add("tenants/a", clock.now)
    assert await names(watch, 1) == ["tenants/a"]
    assert len((await anext(log.revocations(0))).revocations) == 1


async def test_none_of_many_at_once_is_lost(replica: Callable[[], Replica], clock: Clock) -> None:
    logs = [replica()[0] for _ in range(3)]
    wanted = [f"tenants/t{n}" for n in range(12)]
    await asyncio.gather(*(logs[n % 3].add(name, clock.now) for n, name in enumerate(wanted)))
    assert sorted(await names(logs[0].revocations(0), 12)) == sorted(wanted)


async def test_a_store_that_is_away_ends_no_watch(
    replica: Callable[[], Replica], clock: Clock, state: MemoryState, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, _, _ = replica()
    watch = log.revocations(0)
    await anext(watch)
    read, failed = state.get, asyncio.Event()

    async def away(_: str) -> None:
        failed.set()
        raise Unavailable("away")

    monkeypatch.setattr(state, "get", away)
    waiting = asyncio.create_task(names(watch, 1))
    async with asyncio.timeout(60):
        await failed.wait()
    monkeypatch.setattr(state, "get", read)
    await replica()[0].add("tenants/a", clock.now)
    assert await waiting == ["tenants/a"]


async def test_the_store_is_read_once_for_all_who_watch(
    replica: Callable[[], Replica], state: MemoryState, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many they are, and whenever each of them began."""
    reads, enough, read = 0, asyncio.Event(), state.get

    async def counted(key: str) -> Any:
        nonlocal reads
        reads += 1
        if reads > 5:
            enough.set()
        return await read(key)

    monkeypatch.setattr(state, "get", counted)
    log, _, _ = replica()
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        watches = []
        for _ in range(8):
            watches.append(group.create_task(names(log.revocations(0), 1)))
            await asyncio.sleep(revocations._POLL_S / 8)
        await enough.wait()
        for watch in watches:
            watch.cancel()
    assert reads <= (loop.time() - began) / revocations._POLL_S + 1


async def test_a_watch_ends_with_the_process(replica: Callable[[], Replica]) -> None:
    log, stopping, _ = replica()
    watch = log.revocations(0)
    await anext(watch)
    stopping.set()
    async with asyncio.timeout(60):
        assert [news async for news in watch] == []
