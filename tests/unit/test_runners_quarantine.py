"""When a model is locked out, and for how long."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from facetmesh.kit.errors import FailedPrecondition
from facetmesh.runners.quarantine import Quarantine

if TYPE_CHECKING:
    from conftest import Clock

BAD = ("acme", "models/bad")


@pytest.fixture
def quarantine(clock: Clock) -> Quarantine:
    """Three deaths in a minute are five minutes."""
    return Quarantine(deaths=3, window_s=60, duration_s=300, clock=clock)


def test_enough_deaths_lock_out_and_time_lets_in_again(quarantine: Quarantine, clock: Clock) -> None:
    """The caller is told how long."""
    assert [quarantine.record(BAD) for _ in range(3)] == [False, False, True]
    clock.now += 100
    with pytest.raises(FailedPrecondition) as caught:
        quarantine.check(BAD)
    assert caught.value.reason == "MODEL_QUARANTINED"
    assert caught.value.retry_after_s == 200
    assert quarantine.held() == {"acme": 1}
    clock.now += 200
    quarantine.check(BAD)
    assert not quarantine.held()
    assert not quarantine.record(BAD)


def test_deaths_far_apart_do_not_count_together(quarantine: Quarantine, clock: Clock) -> None:
    """Only those within the window do."""
    for _ in range(10):
        assert not quarantine.record(BAD)
        clock.now += 31
    quarantine.check(BAD)


@pytest.mark.parametrize("other", [("acme", "models/good"), ("globex", "models/bad")])
def test_others_are_not_touched(quarantine: Quarantine, other: tuple[str, str]) -> None:
    """Neither the tenant's other models nor another tenant's."""
    for _ in range(3):
        quarantine.record(BAD)
    quarantine.check(other)
