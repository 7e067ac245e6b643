"""Whose call is looked at first: a tenant's only one, before those of tenants whose calls have to wait anyway.

To read a call, to check it and to put it into a queue or refuse it takes the cores and the event loop that the work
on the others' needs. Nothing is lost where it is done a moment later for who has a queue before it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LONGEST_S = 0.1
"""How long one call may hold up others."""


class Turns:
    """Lets calls in.

    Args:
        queues: Whether calls of tenants/{tenant} wait for others of its own.
    """

    def __init__(self, queues: Callable[[str], bool] = lambda _: False) -> None:
        self._queues = queues
        self._calls: Counter[str] = Counter()
        self._first: dict[str, asyncio.Future[None]] = {}
        """By tenant: its only call, while others are held up for it."""

    async def wait(self, tenant: str) -> None:
        """Returns when a new call of a tenant may be looked at: at once where none of its calls wait."""
        if self._first and self._queues(tenant):
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
        try:
            yield
        finally:
            self._calls[tenant] -= 1
            if not self._calls[tenant]:
                del self._calls[tenant]
            if timer is not None:
                timer.cancel()
                self._pass(tenant, call)

    def _pass(self, tenant: str, call: asyncio.Future[None]) -> None:
        """Who waits for a call waits no longer."""
        if not call.done():
            call.set_result(None)
        if self._first.get(tenant) is call:
            del self._first[tenant]
