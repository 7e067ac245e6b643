"""Results are kept for their days, then gone; what was made stays answered for."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from facetmesh.fusion.purge import purge
from facetmesh.fusion.retention import Sweeper, Terms
from facetmesh.kit.errors import NotFound, Unavailable
from facetmesh.kit.profiles import Profile
from facetmesh.kit.sweeping import keep_sweeping

from .fusion_jobs import World, terms

if TYPE_CHECKING:
    from facetmesh.fusion.operations import Operation

    from .conftest import Clock

DAY_S = 86_400
DAYS = {"longer": 5, "forever": 0}


@pytest.fixture
def world(clock: Clock) -> World:
    """A service without work."""
    return World(clock)


@pytest.fixture
def sweeper(world: World) -> Sweeper:
    """Keeps results for two days, but for those who want it otherwise."""
    return sweeping(world, Settings())


@dataclass
class Settings:
    """What auth says of tenants."""

    days: dict[str, int] = field(default_factory=dict)
    shut_out: set[str] = field(default_factory=set)
    away: bool = False
    asked: list[str] = field(default_factory=list)

    async def current(self, tenant: str) -> Profile | None:
        """A tenant's settings."""
        if self.away:
            raise Unavailable("away", reason="AUTH_UNREACHABLE")
        self.asked.append(tenant)
        return None if tenant in self.shut_out else Profile(result_days=self.days.get(tenant, 0))


def sweeping(world: World, told: Settings) -> Sweeper:
    """Keeps results for two days, but for those who or of whom something else is said."""
    return Sweeper(world.store, world.images, Terms(told, lambda tenant_id: DAYS.get(tenant_id, 2)).days, world.clock)


async def made(world: World, tenant_id: str = "acme") -> Operation:
    ended = await world.worker.work(await world.create(tenant_id))
    await world.worker.clear(ended)
    return ended


async def fresh(world: World) -> str:
    """A consent that has not expired yet."""
    return (await world.consents.create("acme", terms(world.clock, expires_s=world.clock.now + 3600))).name


async def test_a_result_stays_for_its_days_and_no_longer(world: World, sweeper: Sweeper, clock: Clock) -> None:
    first = await made(world)
    clock.now += 2 * DAY_S
    assert await sweeper.sweep() == 0
    assert (await world.fusions.download(first.ref))[1]
    clock.now += DAY_S
    assert await sweeper.sweep() == 1
    with pytest.raises(NotFound):
        await world.fusions.download(first.ref)
    assert world.blobs.blobs == {}
    assert await world.store.result_days() == []
    assert await sweeper.sweep() == 0


async def test_what_is_younger_stays(world: World, sweeper: Sweeper, clock: Clock) -> None:
    await made(world)
    clock.now += 3 * DAY_S
    second = await world.worker.work(await world.create(consent=await fresh(world)))
    assert await sweeper.sweep() == 1
    assert (await world.fusions.download(second.ref))[1]


async def test_what_was_made_stays_answered_for(world: World, sweeper: Sweeper, clock: Clock) -> None:
    ended = await made(world)
    clock.now += 3 * DAY_S
    assert await sweeper.sweep() == 1
    assert ended.result is not None
    (match,) = await world.lookups.find("acme", sha256=ended.result.sha256)
    assert match.operation.result == ended.result


async def test_each_tenant_has_its_days(world: World, sweeper: Sweeper, clock: Clock) -> None:
    await made(world)
    kept = [await made(world, tenant_id) for tenant_id in DAYS]
    clock.now += 3 * DAY_S
    assert [await sweeper.sweep(), await sweeper.sweep()] == [1, 0]
    clock.now += 3 * DAY_S
    assert await sweeper.sweep() == 1
    assert [tenant_id for tenant_id, _ in world.blobs.blobs] == ["forever"]
    assert (await world.fusions.download(kept[1].ref))[1]


async def test_all_tenants_are_swept(world: World, sweeper: Sweeper, clock: Clock) -> None:
    await made(world)
    await made(world, "globex")
    clock.now += 3 * DAY_S
    assert await sweeper.sweep() == 2
    assert world.blobs.blobs == {}


async def test_a_sweep_that_was_cut_short_is_repeated(
    world: World, sweeper: Sweeper, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await made(world)
    clock.now += 3 * DAY_S
    delete = world.blobs.delete

    async def down(*_: object) -> None:
        raise Unavailable("gone")

    monkeypatch.setattr(world.blobs, "delete", down)
    with pytest.raises(Unavailable):
        await sweeper.sweep()
    monkeypatch.setattr(world.blobs, "delete", delete)
    assert await sweeper.sweep() == 1
    assert world.blobs.blobs == {}


async def test_an_outage_does_not_end_the_sweeping(
    world: World, sweeper: Sweeper, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await made(world)
    clock.now += 3 * DAY_S
    days, outages = world.store.result_days, [Unavailable("gone")]

    async def flaky() -> list[int]:
        if outages:
            raise outages.pop()
        return await days()

    monkeypatch.setattr(world.store, "result_days", flaky)
    monkeypatch.setattr("facetmesh.kit.sweeping.EVERY_S", 0.0)
    running = asyncio.create_task(keep_sweeping(sweeper.sweep))
    await world.until(lambda: world.blobs.blobs == {})
    running.cancel()


async def test_what_has_no_record_does_no_harm(world: World, sweeper: Sweeper, clock: Clock) -> None:
    ended = await made(world)
    await world.state.delete(ended.name)
    clock.now += 3 * DAY_S
    assert await sweeper.sweep() == 1
    assert await world.store.result_days() == []


async def test_what_a_tenant_says_counts_before_what_the_operator_does(world: World, clock: Clock) -> None:
    told = Settings({"tenants/acme": 5, "tenants/forever": 1})
    sweeper = sweeping(world, told)
    for tenant_id in ("acme", "forever", "globex"):
        await made(world, tenant_id)
    clock.now += 3 * DAY_S
    assert await sweeper.sweep() == 2
    assert [tenant_id for tenant_id, _ in world.blobs.blobs] == ["acme"]
    told.days["tenants/acme"] = 2  # what is kept already goes too
    assert await sweeper.sweep() == 1
    assert world.blobs.blobs == {}


async def test_nothing_is_deleted_on_a_guess(world: World, clock: Clock) -> None:
    told = Settings({"tenants/acme": 5}, shut_out={"tenants/acme"})
    sweeper = sweeping(world, told)
    ended = await made(world)
    clock.now += 3 * DAY_S
    assert await sweeper.sweep() == 0
    told.away = True
    with pytest.raises(Unavailable):
        await sweeper.sweep()
    told.away, told.shut_out = False, set()
    clock.now += 3 * DAY_S
    assert (await world.fusions.download(ended.ref))[1]
    assert await sweeper.sweep() == 1


async def test_what_was_purged_is_not_asked_about_for_ever(world: World, clock: Clock) -> None:
    told = Settings(shut_out={"tenants/acme"})
    sweeper = sweeping(world, told)
    await made(world)
    clock.now += 3 * DAY_S
    await purge(world.store, world.blobs, [], "acme")
    assert await sweeper.sweep() == 1
    assert await world.store.result_days() == []


async def test_each_tenant_is_asked_about_once_and_not_of_today(world: World, clock: Clock) -> None:
    told = Settings()
    sweeper = sweeping(world, told)
    await made(world)
    assert await sweeper.sweep() == 0
    assert told.asked == []
    clock.now += DAY_S
    await world.worker.work(await world.create(consent=await fresh(world), target=b"another"))
    clock.now += DAY_S
    await sweeper.sweep()
    assert told.asked == ["tenants/acme"]
