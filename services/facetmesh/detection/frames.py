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
Name = TypeVar("Name")
Answer = TypeVar("Answer")

_AT_ONCE = 2
"""While the engine has one, the next is decoded."""
_WAITING = 8
"""Frames that wait before a sender has to, too."""
_WAITING_BYTES = 8 << 20
"""What they have, too: large ones wait with their sender."""
_UNSENT = 64
"""Answers that wait for a caller who does not read them."""


@dataclass(eq=False, slots=True)
class Frame(Generic[Name, Answer]):
    """What came of a frame. Its image is not kept: one may wait long for a caller who does not read."""

    name: Name
    """What the caller knows it by."""
    answer: Answer | None = None
    error: FacetmeshError | None = None
    fault: Exception | None = None
    """What the work raised that is no answer."""
    dropped: bool = False
    arrived_s: float = field(default_factory=time.monotonic)
    done: asyncio.Event = field(default_factory=asyncio.Event)


class Frames(Generic[Name, Asked, Answer]):
    """Works on frames.

    Args:
        source: The frames.
        work: What is done with each.
        name: What the caller knows one by.
        size: How many bytes one has.
        newest: Whether only the newest of those that wait is worked on.
        max_wait_s: One that has waited longer is dropped; none is when 0.
    """

    def __init__(
        self,
        source: AsyncIterator[Asked],
        work: Callable[[Asked], Awaitable[Answer]],
        *,
        name: Callable[[Asked], Name],
        size: Callable[[Asked], int],
        newest: bool,
        max_wait_s: float,
    ) -> None:
        self._source = source
        self._work = work
        self._name = name
        self._size = size
        self._newest = newest
        self._max_wait_s = max_wait_s
        self._waiting: deque[tuple[Frame[Name, Answer], Asked]] = deque()
        self._unsent: deque[Frame[Name, Answer]] = deque()
        self._changed = asyncio.Condition()
        self._ended = False

    async def answers(self) -> AsyncIterator[Frame[Name, Answer]]:
        """Each frame in its order, once it is done.

        Raises:
            Exception: What the source raises, after the frames before it are done; what the work on one raises and is
                no FacetmeshError, which would be an answer.
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
                if frame.fault is not None:
                    raise frame.fault
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
                    await self._changed.wait_for(lambda: len(self._unsent) < most and self._has_room())
                    while self._newest and self._waiting:
                        self._drop(self._waiting.popleft()[0])
                    frame = Frame[Name, Answer](self._name(asked))
                    self._waiting.append((frame, asked))
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
                frame, asked = self._waiting.popleft()
                self._changed.notify_all()
            if 0 < self._max_wait_s < time.monotonic() - frame.arrived_s:
                self._drop(frame)
                continue
            try:
                frame.answer = await self._work(asked)
            except FacetmeshError as error:
                frame.error = error
            except Exception as error:  # noqa: BLE001 - it is raised where the answers are read
                frame.fault = error
            finally:
                del asked  # or it would be kept until the next comes
                frame.done.set()

    def _has_room(self) -> bool:
        return self._newest or sum(self._size(asked) for _, asked in self._waiting) < _WAITING_BYTES

    def _drop(self, frame: Frame[Name, Answer]) -> None:
        frame.dropped = True
        frame.done.set()
