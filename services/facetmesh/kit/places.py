"""A service's places for calls in progress, and the bytes of their requests, shared by its callers.

A caller may take no more than what is left when it comes: who is alone gets half, beside one who has that, another
gets a quarter and a half of what that gives back, and so on. So nobody can take all of it, nobody's part must be set,
and there is always something left for who comes next. Source: A. K. Choudhury and E. L. Hahne, "Dynamic queue length
thresholds for shared-memory packet switches", IEEE/ACM Transactions on Networking 6(2), 1998.
"""

from __future__ import annotations

from collections import Counter

from facetmesh.kit.errors import ResourceExhausted

_SOON_S = 1.0


class Places:
    """The places.

    Args:
        calls: Calls in progress.
        held_bytes: What their requests may have together.
    """

    def __init__(self, calls: int, held_bytes: int) -> None:
        self._calls = _Shared(calls)
        self._bytes = _Shared(held_bytes)

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
        return Place(self._calls, self._bytes, caller)


class Place:
    """One call's, until it is left."""

    def __init__(self, calls: _Shared, held: _Shared, caller: str) -> None:
        self._calls = calls
        self._bytes = held
        self._caller = caller
        self._size = 0

    def hold(self, size: int) -> None:
        """Counts the bytes of the call's request; of a stream of them the latest, in place of the one before.

        Raises:
            ResourceExhausted: TOO_MANY_BYTES.
        """
        self._bytes.give_back(self._caller, self._size)
        self._size = 0
        if not self._bytes.take(self._caller, size):
            raise ResourceExhausted(
                "The service has no room for more of your requests now.", reason="TOO_MANY_BYTES",
                retry_after_s=_SOON_S,
            )  # fmt: skip
        self._size = size

    def leave(self) -> None:
        """Gives the place back."""
        self._calls.give_back(self._caller, 1)
        self._bytes.give_back(self._caller, self._size)


class _Shared:
    def __init__(self, limit: int) -> None:
        self._left = limit
        self._taken: Counter[str] = Counter()

    def take(self, caller: str, amount: int) -> bool:
        if self._taken[caller] + amount > self._left:
            return False
        self._left -= amount
        self._taken[caller] += amount
        return True

    def give_back(self, caller: str, amount: int) -> None:
        self._left += amount
        self._taken[caller] -= amount
        if not self._taken[caller]:
            del self._taken[caller]
