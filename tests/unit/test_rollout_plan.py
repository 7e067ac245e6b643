"""Plans that can be followed, and those that cannot."""

from __future__ import annotations

import pytest

from facetmesh.detection.rollout.plan import BLUE_GREEN, CANARY, SHADOW, Plan, Step
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
        (Plan((Step(0), Step(100))), "shows nothing"),
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
