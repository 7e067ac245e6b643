"""The population stability index, without the noise of samples."""

from __future__ import annotations

import math

import numpy as np
import pytest

from facetmesh.detection.rollout import drift


def test_the_index_is_what_the_formula_says() -> None:
    wanted = (0.5 - 0.25) * math.log(0.5 / 0.25) + (0.5 - 0.75) * math.log(0.5 / 0.75)
    assert drift.psi((500_000, 500_000), (250_000, 750_000)) == pytest.approx(wanted, rel=1e-4)


def test_nothing_to_compare_is_no_shift() -> None:
    assert drift.psi((0, 0), (3, 4)) == 0
    assert math.isinf(drift.noise(5, 0, 10, 0.01))
    assert math.isinf(drift.expected(5, 0, 10))


@pytest.mark.parametrize(("one", "other"), [(100, 10_000), (500, 500)])
def test_samples_of_one_population_stay_within_the_noise(one: int, other: int) -> None:
    rng = np.random.default_rng(3)
    shares = (0.1, 0.2, 0.3, 0.4)
    indices = [drift.psi(list(rng.multinomial(one, shares)), list(rng.multinomial(other, shares))) for _ in range(500)]
    assert max(indices) < drift.noise(4, one, other, 0.01)
    assert np.mean(indices) == pytest.approx(drift.expected(4, one, other), rel=0.2)


def test_an_empty_bin_is_not_infinite() -> None:
    assert 1 < drift.psi((100, 0), (0, 100)) < 20
