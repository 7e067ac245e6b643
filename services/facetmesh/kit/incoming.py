"""The messages of a call that streams them, each checked before a servicer sees it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self

from facetmesh.kit.errors import DeadlineExceeded, InvalidArgument

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from google.protobuf.message import Message

IDLE_S = 30.0
"""How long a caller may say nothing: a silent stream would keep others from its place."""


class Incoming:
    """An iterator over a caller's messages. No more are read than are asked for, so a caller cannot fill the memory.

    Args:
        messages: As they come; None for what could not be read.
        check: Returns when a message may be worked on, and raises what it is
            refused with; told whether it is the first.
        idle_s: How long one may take to come, in seconds.
    """

    def __init__(
        self,
        messages: AsyncIterator[Any],
        check: Callable[[Message | None, bool], Awaitable[None]],
        idle_s: float = IDLE_S,
    ) -> None:
        self._messages = messages
        self._check = check
        self._idle_s = idle_s
        self._first: Message | None = None

    async def open(self) -> None:
        """Reads and checks the first message, so that nothing is done for who may not have it done.

        Raises:
            InvalidArgument: REQUEST_MISSING: there is none.
            FacetmeshError: What the check refuses it with.
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
            FacetmeshError: What the check refuses it with.
        """
        if self._first is not None:
            message, self._first = self._first, None
            return message
        return await self._next(first=False)

    async def _next(self, *, first: bool) -> Message:
        try:
            async with asyncio.timeout(self._idle_s):
                message: Message = await anext(self._messages)
        except TimeoutError:
            raise DeadlineExceeded(
                f"Nothing came for {self._idle_s:.0f} s: open the stream again.", reason="STREAM_IDLE"
            ) from None
        await self._check(message, first)
        return message
