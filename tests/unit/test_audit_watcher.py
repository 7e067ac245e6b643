"""Alerts are raised at least once, by one replica at a time, whatever dies."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from facetmesh.audit.rules import load_rules
from facetmesh.audit.watcher import LEASE_S, Watcher
from facetmesh.kit.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from facetmesh.audit.log import Log
    from facetmesh.audit.store import Store
    from facetmesh.kit.alerts import Alert

    from .audit_world import World

DEADLINE_S = 60
RULES = load_rules({"rules": [
    {"name": "each", "filter": "reason = BAD", "by": "resource", "summary": "$subject"},
    {"name": "pair", "filter": "reason = TWICE", "count": 2, "window_s": 60, "summary": "pair"},
    {"name": "region", "when": "new", "by": "subject", "value": "region", "summary": "$value"},
]})  # fmt: skip


@pytest.fixture
def world(audit_world: World) -> World:
    """Services and their keys, with each of the stores."""
    return audit_world


@dataclass
class Desk:
    """Where alerts arrive, when it is not broken."""

    alerts: list[Alert] = field(default_factory=list)
    broken: bool = False

    async def publish(self, alert: Alert) -> None:
        """Takes one."""
        if self.broken:
            raise Unavailable("The broker is down.")
        self.alerts.append(alert)

    def subjects(self) -> list[str]:
        """What they said."""
        return [alert.summary for alert in self.alerts]


def watcher(world: World, log: Log, store: Store, desk: Desk, holder: str = "one") -> Watcher:
    """A replica's watcher."""
    return Watcher(log, store, world.keyring, RULES, desk.publish, clock=world.clock, holder=holder)


async def until(condition: Callable[[], bool]) -> None:
    """Returns when it is so."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.01)


async def stopped(task: asyncio.Task[None]) -> None:
    """Ends a watcher, as a crash would."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_after_a_restart_it_goes_on(world: World) -> None:
    desk = Desk()
    async with world.log() as (log, store):
        await log.ingest([world.signed(reason="BAD", resource="tenants/acme/1"), world.signed(reason="TWICE")])
        await log.ingest([world.signed(region="eu")])
        first = asyncio.create_task(watcher(world, log, store, desk).watch())
        await until(lambda: desk.subjects() == ["tenants/acme/1"])
        await until_moved(store, world, 6)
        await stopped(first)
        await log.ingest([world.signed(reason="BAD", resource="tenants/acme/2"), world.signed(reason="TWICE")])
        second = asyncio.create_task(watcher(world, log, store, desk).watch())
        await until(lambda: len(desk.alerts) >= 3)
        await log.ingest([world.signed(region="us")])
        await until(lambda: len(desk.alerts) >= 4)
        await stopped(second)
    assert desk.subjects() == ["tenants/acme/1", "tenants/acme/2", "pair", "us"]


async def until_moved(store: Store, world: World, position: int) -> None:
    """Returns when the cursor is there."""
    until_us = int((world.clock() + LEASE_S) * 1e6)
    async with asyncio.timeout(DEADLINE_S):
        while await store.take_cursor("alerts", "one", now_us=0, until_us=until_us) != position:
            await asyncio.sleep(0.01)


async def test_what_cannot_be_published_is_tried_again(world: World) -> None:
    desk = Desk(broken=True)
    async with world.log() as (log, store):
        await log.ingest([world.signed(reason="BAD", resource="tenants/acme/1")])
        task = asyncio.create_task(watcher(world, log, store, desk).watch())
        await asyncio.sleep(0.3)
        desk.broken = False
        await until(lambda: desk.subjects() == ["tenants/acme/1"])
        await stopped(task)


async def test_of_two_replicas_one_watches_and_the_other_takes_over(world: World) -> None:
    one, other = Desk(), Desk()
    async with world.log() as (log, store):
        task = asyncio.create_task(watcher(world, log, store, one, "one").watch())
        await log.ingest([world.signed(reason="BAD", resource="tenants/acme/1")])
        await until(lambda: bool(one.alerts))
        await until_moved(store, world, 4)
        await asyncio.wait_for(watcher(world, log, store, other, "other").watch(), DEADLINE_S)  # not its turn
        await stopped(task)
        await log.ingest([world.signed(reason="BAD", resource="tenants/acme/2")])
        world.clock.now += LEASE_S + 0.1
        task = asyncio.create_task(watcher(world, log, store, other, "other").watch())
        await until(lambda: other.subjects() == ["tenants/acme/2"])
        await stopped(task)
    assert one.subjects() == ["tenants/acme/1"]


async def test_what_the_rules_forget_the_store_forgets(world: World) -> None:
    one, other = ("region", "key 1"), ("region", "key 2")
    async with world.log() as (_, store):
        await store.saw([(*one, "eu"), (*one, "us"), (*other, "eu")], [])
        await store.saw([(*one, "asia")], [one])  # it came again after it was forgotten
        assert set(await store.sightings()) == {(*one, "asia"), (*other, "eu")}
    assert await world.problems() == []
