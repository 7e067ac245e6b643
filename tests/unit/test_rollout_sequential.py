"""Confidence sequences hold at all times at once, and still find what is there."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facetmesh.detection.rollout import sequential
from facetmesh.detection.rollout.sequential import Tally


@given(calls=st.integers(0, 100_000), share=st.floats(0, 1), alpha=st.floats(1e-9, 0.5))
def test_the_mean_is_between_the_borders(calls: int, share: float, alpha: float) -> None:
    tally = Tally(calls, round(calls * share))
    assert 0 <= sequential.lower(tally, alpha) <= tally.mean or not calls
    assert tally.mean <= sequential.upper(tally, alpha) <= 1


def test_nothing_is_known_of_no_calls() -> None:
    assert (sequential.lower(Tally(), 0.01), sequential.upper(Tally(), 0.01)) == (0, 1)


def test_a_border_is_where_the_evidence_is_enough() -> None:
    tally = Tally(1000, 30)
    for border in (sequential.lower(tally, 0.01), sequential.upper(tally, 0.01)):
        assert sequential.evidence(tally, border) == pytest.approx(np.log(100), abs=1e-3)


@pytest.mark.parametrize(
    "mean", [0.2, pytest.param(0.01, marks=pytest.mark.full), pytest.param(0.5, marks=pytest.mark.full)]
)
def test_looking_after_every_call_misses_the_mean_no_more_often_than_said(mean: float) -> None:
    alpha, streams, length = 0.1, 300, 1500
    rng = np.random.default_rng(7)
    missed = 0
    for _ in range(streams):
        totals = rng.binomial(1, mean, length).cumsum()
        missed += any(
            sequential.evidence(Tally(calls, int(totals[calls - 1])), mean) >= np.log(1 / alpha)
            for calls in range(1, length + 1, 5)
        )
    assert missed / streams <= alpha


def test_it_holds_for_fractions_too() -> None:
    rng = np.random.default_rng(8)
    missed = 0
    for _ in range(200):
        totals = rng.beta(4, 1, 1000).cumsum()  # the mean is 0.8
        missed += any(
            sequential.evidence(Tally(calls, float(totals[calls - 1])), 0.8) >= np.log(10)
            for calls in range(1, 1001, 5)
        )
    assert missed / 200 <= 0.1


def test_worse_is_found_and_equal_is_not() -> None:
    stable = Tally(10_000, 10)
    assert sequential.is_above(Tally(150, 15), stable, 1e-3, margin=0.01)
    assert not sequential.is_above(Tally(150, 2), stable, 1e-3, margin=0.01)
    assert not sequential.is_above(Tally(5, 3), Tally(5, 0), 1e-3)
