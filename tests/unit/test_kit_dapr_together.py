"""Events that come while others are handled are the next batch."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from facetmesh.kit.dapr import Disposition, Event
from facetmesh.kit.dapr.together import Together
from facetmesh.kit.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence


def event(event_id: str) -> Event:
    return Event(event_id, "t", "s", b"", "", "topic")


class Handler:
    """Handles a batch when it is let."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.go = asyncio.Semaphore(0)
        self.fail: set[str] = set()

    async def __call__(self, events: Sequence[Event]) -> Sequence[Disposition]:
        ids = [one.id for one in events]
        self.batches.append(ids)
        await self.go.acquire()
        if self.fail & set(ids):
            raise Unavailable("The store is away.", reason="STORE_AWAY")
        return [Disposition.DROP if one.startswith("bad") else Disposition.OK for one in ids]


async def deliver(together: Together, *ids: str) -> list[asyncio.Task[Sequence[Disposition]]]:
    tasks = [asyncio.create_task(together.handle([event(one)])) for one in ids]
    await asyncio.sleep(0)
    return tasks


async def test_what_comes_meanwhile_is_the_next_batch_and_each_gets_its_own_verdict() -> None:
    handler = Handler()
    together = Together(handler)
    tasks = await deliver(together, "first")
    await asyncio.sleep(0)
    tasks += await deliver(together, "a", "bad", "c")
    handler.go.release()
    handler.go.release()
    assert await asyncio.gather(*tasks) == [[Disposition.OK], [Disposition.OK], [Disposition.DROP], [Disposition.OK]]
    assert handler.batches == [["first"], ["a", "bad", "c"]]


async def test_a_batch_has_its_largest_size_but_no_call_is_parted() -> None:
    handler = Handler()
    together = Together(handler, most=2)
    tasks = await deliver(together, *"abc")
    tasks.append(asyncio.create_task(together.handle([event(one) for one in "wxyz"])))
    for _ in range(9):
        handler.go.release()
    assert [len(one) for one in await asyncio.gather(*tasks)] == [1, 1, 1, 4]
    assert handler.batches == [["a", "b"], ["c"], ["w", "x", "y", "z"]]


async def test_a_batch_that_fails_fails_for_those_in_it_alone() -> None:
    handler = Handler()
    handler.fail = {"first"}
    together = Together(handler)
    failing = await deliver(together, "first")
    await asyncio.sleep(0)
    fine = await deliver(together, "second")
    handler.go.release()
    handler.go.release()
    with pytest.raises(Unavailable):
        await failing[0]
    assert await fine[0] == [Disposition.OK]
    again = await deliver(together, "third")
    handler.go.release()
    assert await again[0] == [Disposition.OK]


async def test_who_waits_no_more_holds_up_nobody() -> None:
    handler = Handler()
    together = Together(handler)
    tasks = await deliver(together, "first", "second")
    tasks[0].cancel()
    handler.go.release()
    assert await tasks[1] == [Disposition.OK]
    assert handler.batches == [["first", "second"]]
