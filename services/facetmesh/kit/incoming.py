"""The messages of a call that streams them, each checked before a servicer sees it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

from facetmesh.kit.errors import DeadlineExceeded, InvalidArgument

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from google.protobuf.message import Message

IDLE_S = 30.0
"""How long a caller may say nothing: a silent stream would keep others from its place."""


class Incoming:
    """An iterator over a caller's messages. No more are read than are asked for, so a caller cannot fill the memory.

    Args:
        messages: As they come.
        read: Returns a message that may be worked on, and raises what it is
            refused with; told whether it is the first.
        rest: Called when the work on a message has ended.
        idle_s: How long one may take to come, in seconds.
    """

    def __init__(
        self,
        messages: AsyncIterator[bytes],
        read: Callable[[bytes, bool], Awaitable[Message]],
        rest: Callable[[], None],
        idle_s: float = IDLE_S,
    ) -> None:
        self._messages = messages
        self._read = read
        self._rest = rest
        self._idle_s = idle_s
        self._first: Message | None = None

    async def open(self) -> None:
        """Reads and checks the first message, so that nothing is done for who may not have it done.

        Raises:
            InvalidArgument: REQUEST_MISSING: there is none.
            FacetmeshError: What it is refused with.
        """
        try:
            self._first = await self._next(first=True)
        except StopAsyncIteration:
            raise InvalidArgument("The stream has no message.", reason="REQUEST_MISSING") from None

    def __aiter__(self) -> Self:
        """Itself: it can be gone through once."""
        return self

    async def __anext__(self) -> Message:
        """The next message.

        Raises:
            DeadlineExceeded: STREAM_IDLE: none came in time.
            FacetmeshError: What it is refused with.
        """
        if self._first is not None:
            message, self._first = self._first, None
            return message
        self._rest()
        return await self._next(first=False)

    async def _next(self, *, first: bool) -> Message:
        try:
            async with asyncio.timeout(self._idle_s):
                data = await anext(self._messages)
        except TimeoutError:
            raise DeadlineExceeded(
                f"Nothing came for {self._idle_s:.0f} s: open the stream again.", reason="STREAM_IDLE"
            ) from None
        return await self._read(data, first)
