"""What is known of a version's calls in a step."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from itertools import accumulate

from facetmesh.rollout.sequential import Tally

BOUNDS_S = tuple(0.001 * 2 ** (index / 4) for index in range(65))
"""The upper ends of the buckets of a histogram, in seconds: from 1 ms to 65 s, four for each doubling."""
SCORE_BINS = 10
"""Equal parts of the scores from 0 to 1."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """How long calls took."""

    counts: tuple[int, ...] = (0,) * (len(BOUNDS_S) + 1)
    """Of each bucket; the last one is of those beyond the last bound."""

    def quantile_s(self, share: float) -> float:
        """The bound that at least this share of the calls did not take longer than; the last one when it is beyond."""
        needed = share * sum(self.counts)
        return next(
            (bound for bound, below in zip(BOUNDS_S, accumulate(self.counts), strict=False) if below >= needed),
            BOUNDS_S[-1],
        )

    def slower(self, than_s: float) -> Tally:
        """How many took longer than a bound, or than the next bound above a time that is none."""
        return Tally(sum(self.counts), sum(self.counts[bisect_left(BOUNDS_S, than_s * (1 - 1e-9)) + 1 :]))


@dataclass(frozen=True, slots=True)
class Sample:
    """What became of a version's calls."""

    errors: Tally = field(default_factory=Tally)
    """Which of them failed, by the version's fault."""
    latency: Histogram = field(default_factory=Histogram)
    """How long the caller waited."""
    compute: Histogram = field(default_factory=Histogram)
    """The core-seconds that were charged."""
    agreement: Tally = field(default_factory=Tally)
    """Of the calls that both versions answered, how much they agreed: the F1 score at an IoU of 0.5."""
    scores: tuple[int, ...] = (0,) * SCORE_BINS
    """Objects by their score."""
    classes: tuple[int, ...] = ()
    """Objects by their class id."""
    empty: int = 0
    """Calls that found no object: what a version that sees nothing has many of."""

    @property
    def calls(self) -> int:
        """How many there were."""
        return self.errors.calls
