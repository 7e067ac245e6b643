"""Whose call is looked at first: a tenant's only one, before those of tenants whose calls will wait or be refused.

To read a call, to check it and to put it into a queue or refuse it takes the cores and the event loop that the work
on the others' needs. Nothing is lost where it is done a moment later for who has a queue before it, or was refused just
now. Nor does any call go first of a tenant that was refused: refusals cost it nothing, and would keep the others out.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

LONGEST_S = 0.1
"""How long one call may hold up others."""
REFUSED_S = 1.0
"""How long after a refusal a tenant's next call is taken for one that will be refused too."""
_LARGE_BYTES_PER_S = 200e6
"""Of a tenant's large messages. To receive, read and hash one takes the event loop half of that time."""
_LEAVING_S = 0.002
"""An answer that is there has yet to be written to its caller."""


class Background(Protocol):
    """Work that can wait."""

    def pause(self, tenant_id: str) -> None:
        """Has what can wait for a tenant's call stand still."""
        ...

    def resume(self) -> None:
        """Has it go on."""
        ...


class Turns:
    """Lets calls in.

    Args:
        queues: Whether calls of a tenant, given by its id, wait for others of its own.
        background: Stands still while a tenant's only call is answered that has a model work, but never for longer
            than it ran before.
    """

    def __init__(
        self, queues: Callable[[str], bool] = lambda _: False, background: Sequence[Background] = ()
    ) -> None:
        self._queues = queues
        self._background = background
        self._pausing: asyncio.Future[None] | None = None
        """The call for which the background stands still."""
        self._paused_at = 0.0
        self._runs_until = 0.0
        """Until when the background may not be paused again."""
        self._calls: Counter[str] = Counter()
        self._lines: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._first: dict[str, asyncio.Future[None]] = {}
        """By tenant: its only call, while others are held up for it."""
        self._refused: dict[str, float] = {}
        """When the latest call of a tenant was refused, of those whose latest was."""

    async def wait(self, tenant: str) -> None:
        """Returns when a new call of a tenant may be looked at: at once where it would neither wait nor be refused."""
        if self._first and (self._queues(tenant) or self._is_refused(tenant)):
            await self.stand_aside(tenant)

    async def stand_aside(self, tenant: str) -> None:
        """Returns when something of a tenant's may be done that is in no hurry: at once where no other is first."""
        first = [call for other, call in self._first.items() if other != tenant]
        if first:
            await asyncio.wait(first)

    async def in_line(self, tenant: str, size: int) -> None:
        """Returns when a large message of a tenant's may be read: one after the other, and as `stand_aside`.

        Args:
            tenant: Whose.
            size: Of how many bytes; the next one's turn comes when the loop has had time for others' too.
        """
        line = self._lines.setdefault(tenant, asyncio.Lock())
        await line.acquire()
        try:
            await self.stand_aside(tenant)
        finally:
            asyncio.get_running_loop().call_later(size / _LARGE_BYTES_PER_S, line.release)

    @contextmanager
    def answering(self, tenant: str, *, infers: bool = True) -> Iterator[None]:
        """For the length of a tenant's call; only for one that has a model work, and so is paid for, others pause."""
        self._calls[tenant] += 1
        timer: asyncio.TimerHandle | None = None
        loop = asyncio.get_running_loop()
        if self._calls[tenant] == 1 and not self._is_refused(tenant):
            call = self._first[tenant] = loop.create_future()
            timer = loop.call_later(LONGEST_S, self._pass, tenant, call)
            if infers and self._pausing is None and loop.time() >= self._runs_until:
                self._pausing, self._paused_at = call, loop.time()
                for work in self._background:
                    work.pause(tenant)
        try:
            yield
        except Exception:
            self._refused[tenant] = loop.time()
            raise
        else:
            self._refused.pop(tenant, None)
        finally:
            self._calls[tenant] -= 1
            if not self._calls[tenant]:
                del self._calls[tenant]
            if timer is not None:
                timer.cancel()
                loop.call_later(_LEAVING_S, self._pass, tenant, call)

    def _is_refused(self, tenant: str) -> bool:
        """Whether a tenant's calls are refused at present."""
        since = self._refused.get(tenant)
        return since is not None and asyncio.get_running_loop().time() < since + REFUSED_S

    def _pass(self, tenant: str, call: asyncio.Future[None]) -> None:
        """Who waits for a call waits no longer."""
        if not call.done():
            call.set_result(None)
        if self._pausing is call:
            self._pausing = None
            self._runs_until = 2 * asyncio.get_running_loop().time() - self._paused_at
            for work in self._background:
                work.resume()
        if self._first.get(tenant) is call:
            del self._first[tenant]
