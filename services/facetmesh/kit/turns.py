"""Whose call is looked at first: a tenant's only one, before those of tenants whose calls have to wait anyway.

To read a call, to check it and to put it into a queue or refuse it takes the cores and the event loop that the work
on the others' needs. Nothing is lost where it is done a moment later for who has a queue before it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LONGEST_S = 0.1
"""How long one call may hold up others."""
_LEAVING_S = 0.002
"""An answer that is there has yet to be written to its caller."""


class Background(Protocol):
    """Work that nobody's answer waits for."""

    def pause(self) -> None:
        """Has it stand still, if it has run for long enough."""
        ...

    def resume(self) -> None:
        """Has it go on."""
        ...


class Turns:
    """Lets calls in.

    Args:
        queues: Whether calls of tenants/{tenant} wait for others of its own.
        background: Stands still while a tenant's only call is answered; nothing does when None.
    """

    def __init__(
        self, queues: Callable[[str], bool] = lambda _: False, background: Background | None = None
    ) -> None:
        self._queues = queues
        self._background = background
        self._pausing: asyncio.Future[None] | None = None
        """The call for which the background stands still."""
        self._calls: Counter[str] = Counter()
        self._first: dict[str, asyncio.Future[None]] = {}
        """By tenant: its only call, while others are held up for it."""

    async def wait(self, tenant: str) -> None:
        """Returns when a new call of a tenant may be looked at: at once where none of its calls wait."""
        if self._first and self._queues(tenant):
            await self.stand_aside(tenant)

    async def stand_aside(self, tenant: str) -> None:
        """Returns when something of a tenant's may be done that is in no hurry: at once where no other is first."""
        first = [call for other, call in self._first.items() if other != tenant]
        if first:
            await asyncio.wait(first)

    @contextmanager
    def answering(self, tenant: str) -> Iterator[None]:
        """For the length of a tenant's call."""
        self._calls[tenant] += 1
        timer: asyncio.TimerHandle | None = None
        if self._calls[tenant] == 1:
            loop = asyncio.get_running_loop()
            call = self._first[tenant] = loop.create_future()
            timer = loop.call_later(LONGEST_S, self._pass, tenant, call)
            if self._background is not None and self._pausing is None:
                self._pausing = call
                self._background.pause()
        try:
            yield
        finally:
            self._calls[tenant] -= 1
            if not self._calls[tenant]:
                del self._calls[tenant]
            if timer is not None:
                timer.cancel()
                loop.call_later(_LEAVING_S, self._pass, tenant, call)

    def _pass(self, tenant: str, call: asyncio.Future[None]) -> None:
        """Who waits for a call waits no longer."""
        if not call.done():
            call.set_result(None)
        if self._background is not None and self._pausing is call:
            self._pausing = None
            self._background.resume()
        if self._first.get(tenant) is call:
            del self._first[tenant]
