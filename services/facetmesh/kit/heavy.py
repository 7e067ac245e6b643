"""Who comes most often, in bounded memory, however many come.

J. Misra, D. Gries: Finding repeated elements. Science of Computer Programming 2 (1982) 143-152.
"""

from __future__ import annotations


class HeavyHitters:
    """Counts of the keys that come often.

    A count is never too high. It is too low by less than one for each `capacity` keys that were added, so that
    what comes more often than that is not hidden by any number of others.

    Args:
        capacity: How many keys are remembered at most.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._counts: dict[str, int] = {}

    def __len__(self) -> int:
        """How many keys are remembered."""
        return len(self._counts)

    def add(self, key: str) -> int:
        """How often the key came at least, this time included; 0 where that is not known."""
        if key in self._counts or len(self._counts) < self._capacity:
            self._counts[key] = count = self._counts.get(key, 0) + 1
            return count
        # Each that is counted down was counted up once: over time this costs as little as the line above.
        self._counts = {other: count - 1 for other, count in self._counts.items() if count > 1}
        return 0

    def clear(self) -> None:
        """Forgets all."""
        self._counts.clear()
