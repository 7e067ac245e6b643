"""What is known of a version's calls in a step."""

from __future__ import annotations

import operator
from bisect import bisect_left
from dataclasses import dataclass, field
from itertools import accumulate, zip_longest
from typing import TYPE_CHECKING

from facetmesh.detection.rollout.sequential import Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

BOUNDS_S = tuple(0.001 * 2 ** (index / 4) for index in range(65))
"""The upper ends of the buckets of a histogram, in seconds: from 1 ms to 65 s, four for each doubling."""
SCORE_BINS = 10
"""Equal parts of the scores from 0 to 1."""
_BUCKETS = len(BOUNDS_S) + 1


def bucket(seconds: float) -> int:
    """Which of a histogram's buckets a time lies in."""
    return bisect_left(BOUNDS_S, seconds)


@dataclass(frozen=True, slots=True)
class Histogram:
    """How long calls took."""

    counts: tuple[int, ...] = (0,) * _BUCKETS
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

    def __add__(self, other: Sample) -> Sample:
        """Both together."""
        return _combined(self, other, operator.add)

    def since(self, before: Sample) -> Sample:
        """What came after an earlier look at the same counters; all of it where they began anew."""
        grown = _combined(self, before, operator.sub)
        return self if _went_back(grown) else grown


@dataclass(frozen=True, slots=True)
class Samples:
    """Both versions' calls."""

    stable: Sample = field(default_factory=Sample)
    candidate: Sample = field(default_factory=Sample)

    def __add__(self, other: Samples) -> Samples:
        """Both together."""
        return Samples(self.stable + other.stable, self.candidate + other.candidate)

    def since(self, before: Samples) -> Samples:
        """What came after an earlier look at the same counters."""
        return Samples(self.stable.since(before.stable), self.candidate.since(before.candidate))


def _combined(one: Sample, other: Sample, work: Callable[[float, float], float]) -> Sample:
    def each(first: Sequence[int], second: Sequence[int]) -> tuple[int, ...]:
        return tuple(int(work(a, b)) for a, b in zip_longest(first, second, fillvalue=0))

    def tally(first: Tally, second: Tally) -> Tally:
        return Tally(int(work(first.calls, second.calls)), work(first.total, second.total))

    return Sample(
        tally(one.errors, other.errors),
        Histogram(each(one.latency.counts, other.latency.counts)),
        Histogram(each(one.compute.counts, other.compute.counts)),
        tally(one.agreement, other.agreement),
        each(one.scores, other.scores),
        each(one.classes, other.classes),
        int(work(one.empty, other.empty)),
    )


def _went_back(grown: Sample) -> bool:
    counts = (*grown.latency.counts, *grown.compute.counts, *grown.scores, *grown.classes)
    return min(grown.errors.calls, grown.errors.total, grown.agreement.calls, grown.empty, *counts) < 0
