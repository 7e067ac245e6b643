"""What became of each version's calls, since the process began."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from facetmesh.detection.versions import Version

_KEPT = 4096


@dataclass(slots=True)
class Tally:
    """Of one version."""

    succeeded: int = 0
    succeeded_s: float = 0.0
    """How long those took together."""
    failed: int = 0
    failed_s: float = 0.0
    """How long those took together."""
    compared: int = 0
    """Copies of calls that it answered in the shadow of another version."""
    agreement: float = 0.0
    """How much those agreed with the answers, summed up; each from 0 to 1."""
    last_s: float = 0.0
    """When the last call ended, in seconds since the epoch."""


class Statistics:
    """Counts.

    Args:
        clock: Seconds since the epoch.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._tallies: OrderedDict[str, Tally] = OrderedDict()

    def ended(self, version: Version, seconds: float, *, ok: bool) -> None:
        """Counts a call that ended."""
        tally = self._tally(version)
        tally.last_s = self._clock()
        if ok:
            tally.succeeded += 1
            tally.succeeded_s += seconds
        else:
            tally.failed += 1
            tally.failed_s += seconds

    def compared(self, version: Version, agreement: float) -> None:
        """Counts a copy of a call, and how much it agreed with the answer."""
        tally = self._tally(version)
        tally.compared += 1
        tally.agreement += agreement

    def of(self, version: Version) -> Tally:
        """What became of a version's calls."""
        return self._tallies.get(version.name, Tally())

    def all(self) -> Iterator[tuple[str, Tally]]:
        """Each version's resource name and tally."""
        yield from list(self._tallies.items())

    def _tally(self, version: Version) -> Tally:
        tally = self._tallies.setdefault(version.name, Tally())
        self._tallies.move_to_end(version.name)
        if len(self._tallies) > _KEPT:
            self._tallies.popitem(last=False)
        return tally
