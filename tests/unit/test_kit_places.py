"""Places for calls in progress: nobody takes them all."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facetmesh.kit.errors import ResourceExhausted
from facetmesh.kit.places import Place, Places

if TYPE_CHECKING:
    from collections.abc import Coroutine


def taken(places: Places, caller: str, most: int = 1000) -> list[Place]:
    """As many places as the caller gets."""
    found: list[Place] = []
    with pytest.raises(ResourceExhausted) as refusal:  # noqa: PT012 - until it is refused
        for _ in range(most):
            found.append(places.enter(caller))  # noqa: PERF401 - what there was before counts
    assert (refusal.value.reason, refusal.value.retry_after_s) == ("TOO_MANY_CALLS", 1.0)
    return found


def test_who_is_alone_has_half_and_leaves_the_rest() -> None:
    places = Places(100, 1, 1)
    assert len(taken(places, "a")) == 50
    assert len(taken(places, "b")) == 25
    assert len(taken(places, "c")) == 13


def test_what_is_given_back_is_there_for_others() -> None:
    places = Places(100, 1, 1)
    for place in taken(places, "a"):
        place.leave()
    assert len(taken(places, "b")) == 50


async def waits(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Work that has begun, and has to wait."""
    task = asyncio.create_task(work)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not task.done()
    return task


async def test_a_request_that_is_on_its_way_counts_as_the_largest() -> None:
    places = Places(100, 900, 200)
    calls = [places.enter("a") for _ in range(3)]
    for call in calls[:2]:
        await call.expect()
    waiting = await waits(calls[2].expect())
    await places.enter("b").expect()
    calls[0].hold(100)
    assert not waiting.done()
    calls[1].hold(100)
    await waiting


async def test_a_stream_counts_as_the_largest_of_its_messages() -> None:
    places = Places(100, 900, 400)
    stream = places.enter("a")
    await stream.expect()
    stream.hold(50)
    for size in (300, 20):
        await stream.hold_most(size)
    other = places.enter("a")
    waiting = await waits(other.expect())
    stream.leave()
    await waiting
    other.hold(350)
    await places.enter("b").expect()


async def test_a_call_that_waits_for_room_goes_away() -> None:
    places = Places(100, 400, 200)
    first, second = places.enter("a"), places.enter("a")
    await first.expect()
    waiting = await waits(second.expect())
    waiting.cancel()
    await asyncio.wait([waiting])
    second.leave()
    first.leave()
    await places.enter("a").expect()


async def test_who_waits_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("facetmesh.kit.places._PATIENCE_S", 0.05)
    places = Places(100, 400, 200)
    await places.enter("a").expect()
    with pytest.raises(ResourceExhausted) as refusal:
        await places.enter("a").expect()
    assert (refusal.value.reason, refusal.value.retry_after_s) == ("TOO_MANY_BYTES", 1.0)


async def test_what_is_worked_on_is_less_than_what_may_come() -> None:
    places = Places(100, 7200, 200)
    calls = [places.enter("a") for _ in range(3)]
    for call in calls:
        await call.expect()
    await calls[0].work_on(200)
    await calls[1].work_on(200)
    waiting = await waits(calls[2].work_on(200))
    await places.enter("b").work_on(200)
    calls[0].rest()
    await waiting
    for call in calls:
        call.leave()
    await places.enter("a").work_on(400)


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.booleans())))
def test_there_is_always_one_for_a_newcomer(steps: list[tuple[str, bool]]) -> None:
    places = Places(32, 1, 1)
    held: dict[str, list[Place]] = {name: [] for name in "abcde"}
    for caller, enters in steps:
        if enters:
            try:
                held[caller].append(places.enter(caller))
            except ResourceExhausted:
                assert held[caller], "who has nothing was refused"
        elif held[caller]:
            held[caller].pop().leave()
    for place in [place for one in held.values() for place in one]:
        place.leave()
    assert len(taken(places, "a")) == 16
