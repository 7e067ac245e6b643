"""A step's calls, from counters that only grow."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from facetmesh.detection.rollout.samples import Samples

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from facetmesh.detection.rollout.record import Rollout

_KEPT = 1024


@dataclass(frozen=True, slots=True)
class _Known:
    since_s: float
    last: Mapping[str, Samples]
    step: Samples


class Counted:
    """Adds up what each replica's counters grew by in a rollout's step.

    A replica that was started anew begins at 0, and what one that is gone has
    counted stays counted. A controller that starts anew counts anew: its step
    needs its samples again.

    Args:
        read: Each replica's counters of both versions, since it began.
    """

    def __init__(self, read: Callable[[Rollout], Awaitable[Mapping[str, Samples]]]) -> None:
        self._read = read
        self._known: OrderedDict[str, _Known] = OrderedDict()

    async def samples(self, rollout: Rollout) -> Samples:
        """Both versions' calls since the rollout's step began."""
        now = await self._read(rollout)
        known = self._known.pop(rollout.name, None)
        step = Samples()
        if known is not None:
            if known.since_s == rollout.since_s:
                step = known.step
            for replica, counters in now.items():
                step += counters.since(known.last.get(replica, Samples()))
            now = {**known.last, **now}
        self._known[rollout.name] = _Known(rollout.since_s, now, step)
        if len(self._known) > _KEPT:
            self._known.popitem(last=False)
        return step
