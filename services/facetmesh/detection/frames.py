"""The frames of a video: worked on as they come, answered in their order."""

from __future__ import annotations

import asyncio
import time
import traceback
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
_IN_HAND_BYTES = 8 << 20
"""With so much of frames that wait or are worked on no more are read: large ones wait with their sender."""
_UNSENT = 64
"""Answers that wait for a caller who does not read them."""


@dataclass(eq=False, slots=True)
class Frame(Generic[Name, Answer]):
    """What came of a frame. Its image is not kept: one may wait long for a caller who does not read."""

    name: Name
    """What the caller knows it by."""
    size: int
    """How many bytes it had."""
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
        self._in_hand_bytes = 0
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
        try:
            async for asked in self._source:
                async with self._changed:
                    while self._newest and self._waiting:
                        late, _ = self._waiting.popleft()
                        late.dropped = True
                        self._done(late)
                    frame = Frame[Name, Answer](self._name(asked), self._size(asked))
                    self._waiting.append((frame, asked))
                    self._unsent.append(frame)
                    self._in_hand_bytes += frame.size
                    self._changed.notify_all()
                    del asked  # or it would be kept until the next comes
                    await self._changed.wait_for(self._has_room)
        finally:
            async with self._changed:
                self._ended = True
                self._changed.notify_all()

    async def _worker(self) -> None:
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: self._waiting)
                frame, asked = self._waiting.popleft()
            try:
                if 0 < self._max_wait_s < time.monotonic() - frame.arrived_s:
                    frame.dropped = True
                else:
                    frame.answer = await self._work(asked)
            except FacetmeshError as error:
                frame.error = error
                traceback.clear_frames(error.__traceback__)  # they have the image
            except Exception as error:  # noqa: BLE001 - it is raised where the answers are read
                frame.fault = error
            del asked  # or it would be kept until the next comes
            async with self._changed:
                self._done(frame)
                self._changed.notify_all()

    def _has_room(self) -> bool:
        most = _UNSENT if self._newest else _WAITING
        return len(self._unsent) < most and (self._newest or self._in_hand_bytes < _IN_HAND_BYTES)

    def _done(self, frame: Frame[Name, Answer]) -> None:
        self._in_hand_bytes -= frame.size
        frame.done.set()
