"""The frames of a video: worked on as they come, answered in their order."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

from facetmesh.kit.errors import FacetmeshError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")

_AT_ONCE = 2
"""While the engine has one, the next is decoded."""
_WAITING = 8
"""Frames that wait before a sender has to, too."""
_UNSENT = 64
"""Answers that wait for a caller who does not read them."""


@dataclass(eq=False, slots=True)
class Frame(Generic[Asked, Answer]):
    """A frame, and what came of it."""

    asked: Asked
    answer: Answer | None = None
    error: FacetmeshError | None = None
    dropped: bool = False
    arrived_s: float = field(default_factory=time.monotonic)
    done: asyncio.Event = field(default_factory=asyncio.Event)


class Frames(Generic[Asked, Answer]):
    """Works on frames.

    Args:
        source: The frames.
        work: What is done with each.
        newest: Whether only the newest of those that wait is worked on.
        max_wait_s: One that has waited longer is dropped; none is when 0.
    """

    def __init__(
        self,
        source: AsyncIterator[Asked],
        work: Callable[[Asked], Awaitable[Answer]],
        *,
        newest: bool,
        max_wait_s: float,
    ) -> None:
        self._source = source
        self._work = work
        self._newest = newest
        self._max_wait_s = max_wait_s
        self._waiting: deque[Frame[Asked, Answer]] = deque()
        self._unsent: deque[Frame[Asked, Answer]] = deque()
        self._changed = asyncio.Condition()
        self._ended = False

    async def answers(self) -> AsyncIterator[Frame[Asked, Answer]]:
        """Each frame in its order, once it is done.

        Raises:
            FacetmeshError: What the source raises, after the frames before it are done.
        """
        tasks = [asyncio.create_task(self._worker()) for _ in range(_AT_ONCE)]
        reading = asyncio.create_task(self._read())
        try:
            while True:
                async with self._changed:
                    await self._changed.wait_for(lambda: self._unsent or self._ended)
                    if not self._unsent:
                        break
                    frame = self._unsent[0]
                await frame.done.wait()
                yield frame
                async with self._changed:
                    self._unsent.popleft()
                    self._changed.notify_all()
            await reading
        finally:
            for task in (reading, *tasks):
                task.cancel()
            await asyncio.gather(reading, *tasks, return_exceptions=True)

    async def _read(self) -> None:
        most = _UNSENT if self._newest else _WAITING
        try:
            async for asked in self._source:
                async with self._changed:
                    await self._changed.wait_for(lambda: len(self._unsent) < most)
                    while self._newest and self._waiting:
                        self._drop(self._waiting.popleft())
                    frame = Frame[Asked, Answer](asked)
                    self._waiting.append(frame)
                    self._unsent.append(frame)
                    self._changed.notify_all()
        finally:
            async with self._changed:
                self._ended = True
                self._changed.notify_all()

    async def _worker(self) -> None:
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: self._waiting)
                frame = self._waiting.popleft()
            if 0 < self._max_wait_s < time.monotonic() - frame.arrived_s:
                self._drop(frame)
                continue
            try:
                frame.answer = await self._work(frame.asked)
            except FacetmeshError as error:
                frame.error = error
            finally:
                frame.done.set()

    def _drop(self, frame: Frame[Asked, Answer]) -> None:
        frame.dropped = True
        frame.done.set()
