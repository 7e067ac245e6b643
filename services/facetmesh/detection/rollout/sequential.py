"""Tests that may be looked at after every call, and stopped at any time.

A fixed-size test that is looked at again and again finds something in the end. A
confidence sequence holds for all sizes at once: the chance that it *ever* misses
the true mean is at most alpha.

Here it is the beta mixture of likelihood ratios. For calls X1, X2, … from 0 to 1
with mean m, and any q, the product of (q/m)^X ((1-q)/(1-m))^(1-X) is a
supermartingale that begins at 1: exactly a likelihood ratio where X is 0 or 1, and
at most that for what lies between, since exp is convex. So is its mixture over
q ~ Beta(1/2, 1/2), which has a closed form, and by Ville's inequality it ever
reaches 1/alpha with a chance of at most alpha. The means for which it has not are
the confidence sequence.

Sources: Robbins, Statistical methods related to the law of the iterated logarithm,
1970; Howard, Ramdas, McAuliffe, Sekhon, Time-uniform, nonparametric, nonasymptotic
confidence sequences, Annals of Statistics 49(2), 2021 (the beta-binomial mixture,
and sub-Bernoulli variables).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

_PRIOR = 0.5
"""Both parameters of the mixture: Jeffreys' prior, which is good at rare events."""
_HALVINGS = 40


@dataclass(frozen=True, slots=True)
class Tally:
    """Numbers from 0 to 1, one of each call."""

    calls: int = 0
    total: float = 0.0
    """What they make together: of yes and no, how many said yes."""

    @property
    def mean(self) -> float:
        """Their mean; 0 where there are none."""
        return self.total / self.calls if self.calls else 0.0


def evidence(tally: Tally, mean: float) -> float:
    """The logarithm of the evidence against a mean: at least ln(1/alpha), ever, with a chance of at most alpha."""
    rest = tally.calls - tally.total
    return (
        _log_beta(_PRIOR + tally.total, _PRIOR + rest)
        - _log_beta(_PRIOR, _PRIOR)
        - _times_log(tally.total, mean)
        - _times_log(rest, 1 - mean)
    )


def lower(tally: Tally, alpha: float) -> float:
    """What the mean is not below; wrong, at any time, with a chance of at most alpha together with `upper`."""
    return _border(tally, alpha, 0.0)


def upper(tally: Tally, alpha: float) -> float:
    """What the mean is not above; wrong, at any time, with a chance of at most alpha together with `lower`."""
    return _border(tally, alpha, 1.0)


def is_above(candidate: Tally, stable: Tally, alpha: float, *, margin: float = 0.0) -> bool:
    """Whether the candidate's mean is above the stable version's by more than a margin.

    Says so, at any time, when it is not so, with a chance of at most alpha.
    """
    return lower(candidate, alpha / 2) > upper(stable, alpha / 2) + margin


def _border(tally: Tally, alpha: float, end: float) -> float:
    """Where the evidence reaches ln(1/alpha), between the mean and an end: it grows from here to there."""
    enough = -math.log(alpha)
    inside, outside = tally.mean, end
    if not tally.calls or evidence(tally, outside) < enough:
        return end
    for _ in range(_HALVINGS):
        middle = (inside + outside) / 2
        if evidence(tally, middle) < enough:
            inside = middle
        else:
            outside = middle
    return outside


def _log_beta(one: float, other: float) -> float:
    return math.lgamma(one) + math.lgamma(other) - math.lgamma(one + other)


def _times_log(times: float, value: float) -> float:
    """Value's logarithm, so many times: times * ln(value), where nothing times the logarithm of nothing is nothing."""
    if times <= 0:
        return 0.0
    return times * math.log(value) if value > 0 else -math.inf
