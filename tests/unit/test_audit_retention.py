"""Retention: bodies expire, the log does not; a hold keeps them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from facetmesh.audit.retention import MAX_DAYS, Retention, Retentions
from facetmesh.kit.errors import Aborted, InvalidArgument
from facetmesh.verify import verify_receipt

if TYPE_CHECKING:
    from collections.abc import Callable

    from .audit_world import World

DAY_S = 24 * 3600


@pytest.fixture
def world(audit_world: World) -> World:
    """Services and their keys, with each of the stores."""
    return audit_world


def kept(days: int, *, hold: str = "") -> Callable[[Retention], Retention]:
    """A change to this many days, and to a hold for this reason."""
    return lambda old: replace(old, days=days, hold=bool(hold), reason=hold)


async def test_for_ever_until_somebody_says_otherwise(world: World) -> None:
    async with world.store() as store:
        retentions = Retentions(store, world.clock)
        assert await retentions.get("acme") == Retention("acme")
        assert (await retentions.change("acme", kept(30))).days == 30
        assert (await retentions.get("acme")).days == 30
        assert (await retentions.get("globex")).days == 0


async def test_what_expires_is_the_body(world: World) -> None:
    old, other = world.event(), world.event(tenant="tenants/globex")
    async with world.log() as (log, store):
        sign = world.services["detection"].sign
        await log.ingest([sign(old), sign(other)])
        receipt = await world.receipt(log, old)
        world.clock.now += 31 * DAY_S
        new = world.event()
        await log.ingest([sign(new)])
        retentions = Retentions(store, world.clock)
        await retentions.change("acme", kept(30))
        assert await retentions.sweep() == 1
        assert await retentions.sweep() == 0
        assert await store.find(old.id) is None
        assert await store.find(other.id) is not None
        assert await store.find(new.id) is not None
        assert await log.ingest([sign(old)]) == [None]  # a repeat is one still
        assert log.head.size == 6
        assert verify_receipt(receipt, world.verifier_key) == old
        assert verify_receipt(await world.receipt(log, new), world.verifier_key) == new
    assert await world.problems() == []


async def test_a_hold_keeps_everything(world: World) -> None:
    event = world.event()
    async with world.log() as (log, store):
        await log.ingest([world.services["detection"].sign(event)])
        world.clock.now += 31 * DAY_S
        retentions = Retentions(store, world.clock)
        await retentions.change("acme", kept(30, hold="case 17"))
        assert await retentions.sweep() == 0
        await retentions.change("acme", kept(30))
        assert await retentions.sweep() == 1


@pytest.mark.parametrize("days", [-1, MAX_DAYS + 1])
async def test_days_have_limits(world: World, days: int) -> None:
    async with world.store() as store:
        with pytest.raises(InvalidArgument) as error:
            await Retentions(store, world.clock).change("acme", kept(days))
    assert error.value.reason == "RETENTION_INVALID"


async def test_a_hold_has_a_reason(world: World) -> None:
    async with world.store() as store:
        with pytest.raises(InvalidArgument) as error:
            await Retentions(store, world.clock).change("acme", lambda old: replace(old, hold=True))
    assert error.value.reason == "HOLD_UNEXPLAINED"


async def test_of_two_changes_the_later_reads_again(world: World) -> None:
    async with world.store() as store:
        retentions = Retentions(store, world.clock)
        first = await retentions.change("acme", kept(30))
        second = await retentions.change("acme", kept(60), etag=first.etag)
        assert second.etag != first.etag
        with pytest.raises(Aborted):
            await retentions.change("acme", kept(90), etag=first.etag)
        assert (await retentions.get("acme")).days == 60
