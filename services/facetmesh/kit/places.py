"""A service's places for calls in progress, and the bytes of their requests, shared by its callers.

A caller may take no more than what is left when it comes: who is alone gets half, beside one who has that, another
gets a quarter and a half of what that gives back, and so on. So nobody can take all of it, nobody's part must be set,
and there is always something left for who comes next. Source: A. K. Choudhury and E. L. Hahne, "Dynamic queue length
thresholds for shared-memory packet switches", IEEE/ACM Transactions on Networking 6(2), 1998.

How large a request is, is known when all of it has come, and lies in memory. So until then it counts as the largest; of
a stream, which may wait for hours, what is on its way counts as the largest that came before.
"""

from __future__ import annotations

import asyncio
from collections import Counter

from facetmesh.kit.errors import ResourceExhausted

_SOON_S = 1.0
_PATIENCE_S = 10.0
"""How long a request waits for others of its caller."""
_COPIES = 8
"""What is worked on lies in memory several times, read and in parts: it has that part of the bytes."""


class Places:
    """The places.

    Args:
        calls: Calls in progress.
        held_bytes: What their requests may have together.
        request_bytes: The largest.
    """

    def __init__(self, calls: int, held_bytes: int, request_bytes: int) -> None:
        self._calls = _Shared(calls)
        self._held = _Shared(held_bytes)
        self._worked_on = _Shared(held_bytes // _COPIES)
        self._request_bytes = request_bytes

    def enter(self, caller: str) -> Place:
        """A place for a call.

        Args:
            caller: Whose share it counts to.

        Raises:
            ResourceExhausted: TOO_MANY_CALLS.
        """
        if not self._calls.take(caller, 1):
            raise ResourceExhausted(
                "The service has no place for more of your calls now.", reason="TOO_MANY_CALLS", retry_after_s=_SOON_S
            )
        return Place(
            _Part(self._calls, caller, 1), _Part(self._held, caller), _Part(self._worked_on, caller),
            self._request_bytes,
        )  # fmt: skip


class Place:
    """One call's, until it is left."""

    def __init__(self, call: _Part, held: _Part, worked_on: _Part, request_bytes: int) -> None:
        self._call = call
        self._held = held
        self._worked_on = worked_on
        self._request_bytes = request_bytes

    async def expect(self) -> None:
        """Returns when there is room for whatever the call brings, before any of it is read.

        Raises:
            ResourceExhausted: TOO_MANY_BYTES.
        """
        await self._held.take(self._request_bytes)

    def hold(self, size: int) -> None:
        """Counts the bytes of the request that has come, or of the first message of several."""
        self._held.give_back(but=size)

    async def hold_most(self, size: int) -> None:
        """Returns when there is room for a later message, which has come; it stays the stream's, for the next ones.

        Raises:
            ResourceExhausted: TOO_MANY_BYTES.
        """
        if size > self._held.amount:
            await self._held.take(size - self._held.amount)

    async def work_on(self, size: int) -> None:
        """Returns when there is room for work on a large message that has come.

        Raises:
            ResourceExhausted: TOO_MANY_BYTES.
        """
        await self._worked_on.take(size)

    def rest(self) -> None:
        """Nothing is worked on until the next message comes."""
        self._worked_on.give_back()

    def leave(self) -> None:
        """Gives the place back."""
        for part in (self._call, self._held, self._worked_on):
            part.give_back()


class _Part:
    """What one call has of something."""

    def __init__(self, shared: _Shared, caller: str, amount: int = 0) -> None:
        self._shared = shared
        self._caller = caller
        self.amount = amount

    async def take(self, amount: int) -> None:
        await self._shared.wait(self._caller, amount)
        self.amount += amount

    def give_back(self, *, but: int = 0) -> None:
        self._shared.give_back(self._caller, self.amount - but)
        self.amount = but


class _Shared:
    def __init__(self, limit: int) -> None:
        self._left = limit
        self._taken: Counter[str] = Counter()
        self._given_back = asyncio.Event()

    def take(self, caller: str, amount: int) -> bool:
        if self._taken[caller] + amount > self._left:
            return False
        self._left -= amount
        self._taken[caller] += amount
        return True

    async def wait(self, caller: str, amount: int) -> None:
        """Takes what may have to be given back first."""
        if self.take(caller, amount):
            return
        try:
            async with asyncio.timeout(_PATIENCE_S):
                while not self.take(caller, amount):
                    self._given_back.clear()
                    await self._given_back.wait()
        except TimeoutError:
            raise ResourceExhausted(
                "The service has no room for more of your requests now.", reason="TOO_MANY_BYTES",
                retry_after_s=_SOON_S,
            ) from None  # fmt: skip

    def give_back(self, caller: str, amount: int) -> None:
        self._left += amount
        self._taken[caller] -= amount
        if not self._taken[caller]:
            del self._taken[caller]
        self._given_back.set()
