"""The frames of a video: in their order, however long each takes; late ones wait or are dropped."""

from __future__ import annotations

import asyncio
import gc
import random
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from facetmesh.detection.frames import Frames
from facetmesh.kit.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

DEADLINE_S = 30


class _Image:
    pass


async def video(frames: int) -> AsyncIterator[int]:
    """Frames as fast as they are taken."""
    for number in range(frames):
        yield number


def frames(source: AsyncIterator[Any], work: Callable[[Any], Awaitable[int]], **more: Any) -> Frames[int, Any, int]:
    """Frames that have their numbers for names, and a byte each; none is late."""
    return Frames(source, work, **{"name": int, "size": lambda _: 1, "newest": False, "max_wait_s": 0, **more})


async def test_answers_come_in_the_order_of_the_frames() -> None:
    chance = random.Random(1)  # noqa: S311 - a test that can be repeated

    async def work(frame: int) -> int:
        await asyncio.sleep(chance.random() / 500)
        return frame * 10

    async with asyncio.timeout(DEADLINE_S):
        answers = [frame async for frame in frames(video(50), work).answers()]
    assert [frame.name for frame in answers] == list(range(50))
    assert [frame.answer for frame in answers] == [number * 10 for number in range(50)]


async def test_what_is_wrong_with_one_frame_does_not_end_the_video() -> None:
    async def work(frame: int) -> int:
        if frame == 1:
            raise InvalidArgument("No image.", reason="IMAGE_NOT_RECOGNIZED")
        return frame

    async with asyncio.timeout(DEADLINE_S):
        answers = [frame async for frame in frames(video(3), work).answers()]
    assert [frame.error.reason if frame.error else "" for frame in answers] == ["", "IMAGE_NOT_RECOGNIZED", ""]


@pytest.mark.parametrize(("size", "most"), [(1, 20), (5 << 20, 3)])
async def test_who_sends_waits_where_frames_do(size: int, most: int) -> None:
    """No more are taken than a few, until answers are read; of large ones, fewer."""
    taken = 0
    gate = asyncio.Event()

    async def endless() -> AsyncIterator[int]:
        nonlocal taken
        while True:
            taken += 1
            yield taken

    async def work(frame: int) -> int:
        await gate.wait()
        return frame

    answers = frames(endless(), work, size=lambda _: size).answers()
    async with asyncio.timeout(DEADLINE_S):
        first = asyncio.create_task(anext(answers))
        for _ in range(200):
            await asyncio.sleep(0)
        assert taken < most
        gate.set()
        assert (await first).answer == 1
    await answers.aclose()  # type: ignore[attr-defined]


async def test_only_the_newest_is_worked_on_where_the_others_are_dropped() -> None:
    gate, worked = asyncio.Event(), []

    async def work(frame: int) -> int:
        await gate.wait()
        worked.append(frame)
        return frame

    async def burst() -> AsyncIterator[int]:
        for number in range(10):
            yield number
            await asyncio.sleep(0.001)
        gate.set()

    async with asyncio.timeout(DEADLINE_S):
        answers = [frame async for frame in frames(burst(), work, newest=True).answers()]
    assert [frame.name for frame in answers] == list(range(10))
    assert answers[-1].answer == 9
    assert 0 < sum(frame.dropped for frame in answers) == 10 - len(worked)


async def test_one_that_waited_too_long_is_dropped() -> None:
    async def work(frame: int) -> int:
        await asyncio.sleep(0.6)
        return frame

    async with asyncio.timeout(DEADLINE_S):
        answers = [frame async for frame in frames(video(8), work, max_wait_s=0.3).answers()]
    assert not answers[0].dropped
    assert any(frame.dropped for frame in answers)


async def test_a_source_that_fails_ends_it_after_the_frames_before() -> None:
    async def source() -> AsyncIterator[int]:
        yield 1
        raise InvalidArgument("Only the first message has settings.", reason="SETTINGS_REPEATED")

    async def work(frame: int) -> int:
        return frame

    seen = []
    with pytest.raises(InvalidArgument):  # noqa: PT012 - what came before the error counts
        async for frame in frames(source(), work).answers():
            seen.append(frame.answer)  # noqa: PERF401 - likewise
    assert seen == [1]


async def test_a_fault_in_the_work_ends_it() -> None:
    """It is not taken for an answer, and nobody waits for what no worker is left to do."""
    async def work(frame: int) -> int:
        if frame < 3:
            raise RuntimeError("a fault")
        return frame

    answers = frames(video(9), work).answers()
    async with asyncio.timeout(DEADLINE_S):
        with pytest.raises(RuntimeError, match="a fault"):
            await anext(answers)


@pytest.mark.parametrize("newest", [False, True])
async def test_answers_that_nobody_reads_keep_no_images(newest: bool) -> None:  # noqa: FBT001 - a table
    class Image:
        """One that can be seen to be gone."""

    images: weakref.WeakSet[Image] = weakref.WeakSet()
    sent = 0

    async def video_of_images() -> AsyncIterator[Image]:
        nonlocal sent
        while True:
            images.add(image := Image())
            sent += 1
            yield image
            del image
            await asyncio.sleep(0)

    async def work(_: Image) -> int:
        return 1

    answers = frames(video_of_images(), work, name=id, newest=newest).answers()
    async with asyncio.timeout(DEADLINE_S):
        await anext(answers)
        most = 0
        while sent > most:  # until no more are taken
            most = sent
            for _ in range(50):
                await asyncio.sleep(0)
    assert len(images) <= 1 < most  # the one that its sender cannot get rid of
    await answers.aclose()  # type: ignore[attr-defined]


async def test_a_frame_that_is_refused_is_let_go_of() -> None:
    kept: list[weakref.ref[_Image]] = []

    async def work(_: int) -> int:
        image = _Image()
        kept.append(weakref.ref(image))
        raise InvalidArgument("No image.", reason="IMAGE_NOT_RECOGNIZED")

    gc.disable()
    try:
        async with asyncio.timeout(DEADLINE_S):
            answers = [frame async for frame in frames(video(3), work).answers()]
        assert all(frame.error is not None for frame in answers)
        assert [one() for one in kept] == [None] * 3
    finally:
        gc.enable()
