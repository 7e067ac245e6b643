"""Whether two versions see the same kinds of things: the population stability index.

PSI is the sum of (p - q) ln(p / q) over the bins. By convention below 0.1 is
nothing and above 0.25 is a shift. Two samples of one population do not give 0 but
about (bins - 1)(1/n + 1/m), and PSI / (1/n + 1/m) is distributed as chi-squared
with bins - 1 degrees of freedom (Yurdakul, Statistical properties of the population
stability index, 2018). So what the noise of the samples can do is taken off first.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_SMOOTHING = 0.5
"""Added to each bin, so that an empty one does not make the index infinite."""


def psi(one: Sequence[float], other: Sequence[float]) -> float:
    """The index of two histograms with the same bins; 0 where one of them is empty."""
    if not sum(one) or not sum(other):
        return 0.0
    return sum((p - q) * math.log(p / q) for p, q in zip(_shares(one), _shares(other), strict=True))


def noise(bins: int, calls: int, others: int, alpha: float) -> float:
    """What the index of two samples of one population stays below.

    The samples' sizes are images, not objects: the objects of an image go together.
    It holds for all numbers of calls at once, each with its part of alpha
    (alpha / (calls (calls + 1)) sum to alpha).

    Source of the bound on chi-squared: Laurent and Massart, Adaptive estimation of a
    quadratic functional by model selection, Annals of Statistics 28(5), 2000, lemma 1.
    """
    if not calls or not others:
        return math.inf
    tail = math.log(calls * (calls + 1) / alpha)
    degrees = max(bins - 1, 1)
    return (degrees + 2 * math.sqrt(degrees * tail) + 2 * tail) * (1 / calls + 1 / others)


def expected(bins: int, calls: int, others: int) -> float:
    """What the index of two samples of one population is on average."""
    return max(bins - 1, 1) * (1 / calls + 1 / others) if calls and others else math.inf


def _shares(counts: Sequence[float]) -> list[float]:
    total = sum(counts) + _SMOOTHING * len(counts)
    return [(count + _SMOOTHING) / total for count in counts]
