"""Keeps a model that kills its runners from being run again and again."""

from __future__ import annotations

import time
from collections import Counter, deque
from typing import TYPE_CHECKING

from facetmesh.kit.errors import FailedPrecondition

if TYPE_CHECKING:
    from collections.abc import Callable

Subject = tuple[str, str]
"""An isolation domain, and what of it ran: a tenant and the name of its model."""


class Quarantine:
    """Counts deaths, and locks a subject out when there were too many.

    Args:
        deaths: So many within the window lock it out.
        window_s: How long a death counts.
        duration_s: How long it is locked out.
        clock: Seconds that never go back.
    """

    def __init__(
        self, *, deaths: int, window_s: float, duration_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit = deaths
        self._window_s = window_s
        self._duration_s = duration_s
        self._clock = clock
        self._deaths: dict[Subject, deque[float]] = {}
        self._until: dict[Subject, float] = {}

    def record(self, subject: Subject) -> bool:
        """Counts a death that the subject may have caused; returns whether that locked it out."""
        now = self._clock()
        self._forget(now)
        times = self._deaths.setdefault(subject, deque())
        times.append(now)
        if len(times) < self._limit:
            return False
        del self._deaths[subject]
        self._until[subject] = now + self._duration_s
        return True

    def check(self, subject: Subject) -> None:
        """Lets the subject pass, or refuses.

        Raises:
            FailedPrecondition: MODEL_QUARANTINED: it is locked out.
        """
        left_s = self._until.get(subject, 0.0) - self._clock()
        if left_s > 0:
            raise FailedPrecondition(
                f"The model has ended its process {self._limit} times and is not run for a while.",
                reason="MODEL_QUARANTINED",
                retry_after_s=left_s,
            )

    def holds(self, subject: Subject) -> bool:
        """Whether the subject is locked out."""
        return self._until.get(subject, 0.0) > self._clock()

    def held(self) -> dict[str, int]:
        """How many subjects of each domain are locked out."""
        now = self._clock()
        return dict(Counter(domain for (domain, _), until in self._until.items() if until > now))

    def _forget(self, now: float) -> None:
        for subject, times in list(self._deaths.items()):
            while times and times[0] <= now - self._window_s:
                times.popleft()
            if not times:
                del self._deaths[subject]
        self._until = {subject: until for subject, until in self._until.items() if until > now}
