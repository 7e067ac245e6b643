"""Plans that can be followed, and those that cannot."""

from __future__ import annotations

import pytest

from facetmesh.detection.rollout.plan import BLUE_GREEN, CANARY, LOOK, SHADOW, Plan, Step
from facetmesh.kit.errors import InvalidArgument


def test_the_plans_that_we_offer_make_sense() -> None:
    Plan().check()
    Plan(BLUE_GREEN).check()
    assert [step.percent for step in CANARY] == [0, 1, 10, 50, 100]


@pytest.mark.parametrize(
    ("plan", "why"),
    [
        (Plan(()), "from 1 to 20"),
        (Plan(tuple(Step(percent) for percent in range(80, 101))), "from 1 to 20"),
        (Plan((Step(-1), Step(100))), "from 0 to 100"),
        (Plan((Step(1, shadow_percent=101), Step(100))), "from 0 to 100"),
        (Plan((SHADOW, Step(100, shadow_percent=1))), "none is left"),
        (Plan((LOOK, Step(100))), "before 1 percent"),
        (Plan((Step(10), Step(10), Step(100))), "more calls"),
        (Plan((Step(50), Step(10), Step(100))), "more calls"),
        (Plan((SHADOW, Step(99))), "100 percent"),
        (Plan((Step(100),)), "compare with"),
        (Plan(window_s=0), "window_s"),
        (Plan(window_s=10, patience_s=9), "window_s"),
        (Plan(patience_s=1e9), "window_s"),
        (Plan(window_s=float("nan")), "window_s"),
    ],
)
def test_what_cannot_be_followed_is_refused(plan: Plan, why: str) -> None:
    with pytest.raises(InvalidArgument, match=why):
        plan.check()


@pytest.mark.parametrize(
    ("asked", "followed"),
    [
        (CANARY, CANARY),
        (BLUE_GREEN, BLUE_GREEN),
        ((Step(1), Step(100)), (LOOK, Step(1), Step(100))),
        ((Step(10), Step(100)), (LOOK, Step(1), Step(10), Step(100))),
        ((Step(10, shadow_percent=5), Step(100)), (LOOK, Step(1), Step(10, shadow_percent=5), Step(100))),
        ((SHADOW, Step(50), Step(100)), (SHADOW, Step(50), Step(100))),
    ],
)
def test_a_version_that_was_not_seen_in_the_shadow_is_given_little_before_it_is_given_more(
    asked: tuple[Step, ...], followed: tuple[Step, ...]
) -> None:
    led = Plan(asked, window_s=60).led_in()
    assert led == Plan(followed, window_s=60)
    assert led.led_in() == led
    led.check()


@pytest.mark.parametrize("asked", [(), (Step(100),), (Step(-1), Step(100)), (LOOK, Step(100)), (LOOK,)])
def test_what_makes_no_sense_is_not_made_to(asked: tuple[Step, ...]) -> None:
    assert Plan(asked).led_in() == Plan(asked)
    with pytest.raises(InvalidArgument):
        Plan(asked).check()


def test_the_first_one_in_a_hundred_takes_a_margin_of_calls_before_it() -> None:
    assert Plan((LOOK, Step(1), Step(100))).calls_before(0, samples=100) == 5000
    assert Plan(BLUE_GREEN).calls_before(0, samples=100) == 50
