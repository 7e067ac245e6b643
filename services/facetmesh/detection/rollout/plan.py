"""What a rollout is asked to do: how much of the calls the new version gets, step by step, and how good it must be.

The API's owner checks it, the controller follows it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

from facetmesh.kit.errors import InvalidArgument

WHOLE = 100
MOST_STEPS = 20
_LONGEST_S = 30 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Step:
    """A part of the calls for a while."""

    percent: int
    """Of 100 calls, how many the new version answers."""
    shadow_percent: int = 0
    """Of 100 calls that the stable version answers, how many it gets a copy of."""


SHADOW = Step(0, shadow_percent=10)
CANARY = (SHADOW, Step(1), Step(10), Step(50), Step(WHOLE))
"""The default."""
BLUE_GREEN = (Step(0, shadow_percent=WHOLE), Step(WHOLE))
"""All at once, after a look at it in the shadow."""
LOOK = Step(0)
"""Nothing is sent to the new version yet; the stable version's calls are counted."""
FIRST = Step(1)
"""What a version is given before anything more."""
_MARGIN = 50
"""How many of the stable version's calls go before the candidate's first, for each sample that a gate asks for.

A bad version shows after about as many calls of its own as there are samples, a hundred times as many in all where it
has one in a hundred. Half as many more beforehand keep its share under that, whatever lots are drawn.
"""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done."""

    steps: tuple[Step, ...] = CANARY
    window_s: float = 300.0
    """How long a step lasts at the least."""
    patience_s: float = 3600.0
    """After which a step that has not passed is given up: no data is not good data."""

    def led_in(self) -> Plan:
        """The plan, and where it begins with calls, what goes before them: a look, and one call in a hundred.

        So a version of which nothing was seen in the shadow has few when it fails.
        """
        if not self.steps or not 0 < self.steps[0].percent < WHOLE:
            return self
        small = (FIRST,) if self.steps[0].percent > FIRST.percent else ()
        return replace(self, steps=(LOOK, *small, *self.steps))

    def calls_before(self, step: int, samples: int) -> int:
        """How many calls the stable version must have had before a step that sends none to the candidate passes."""
        return samples * _MARGIN // self.steps[step + 1].percent

    def check(self) -> None:
        """Returns when it makes sense.

        Raises:
            InvalidArgument: FIELD_INVALID, and why.
        """
        if not 1 <= len(self.steps) <= MOST_STEPS:
            raise _invalid(f"steps: there are {len(self.steps)}; from 1 to {MOST_STEPS} can be.")
        for step in self.steps:
            if not 0 <= step.percent <= WHOLE or not 0 <= step.shadow_percent <= WHOLE:
                raise _invalid("steps: a percent is from 0 to 100.")
            if step.percent == WHOLE and step.shadow_percent:
                raise _invalid("steps: where the new version answers all calls, none is left to copy.")
        if any(step == LOOK and later.percent > FIRST.percent for step, later in pairwise(self.steps)):
            raise _invalid("steps: one without copies in which the new version gets no call comes before 1 percent.")
        if any(later.percent <= earlier.percent for earlier, later in pairwise(self.steps)):
            raise _invalid("steps: each must give the new version more calls than the one before.")
        if self.steps[-1].percent != WHOLE:
            raise _invalid("steps: the last must give it all calls, 100 percent.")
        if self.steps[0].percent == WHOLE:
            raise _invalid("steps: the first must leave the stable version calls to compare with.")
        if not 1 <= self.window_s <= self.patience_s <= _LONGEST_S:
            raise _invalid("window_s: from 1 second to patience_s, and that at most 30 days.")


@dataclass(frozen=True, slots=True)
class Limits:
    """How much worse a version may be."""

    errors: float = 0.01
    """The share of calls that fail, beyond the stable version's."""
    slowdown: float = 1.3
    """Times as long; rounded up to a bucket's bound, so up to 1.19 times this is let pass."""
    cost: float = 1.5
    """Times the compute of a call, at the median; rounded like `slowdown`."""
    agreement: float = 0.8
    """The F1 score of its objects against the stable version's, on average, at the least."""
    drift: float = 0.25
    """The population stability index of scores, and of classes."""
    samples: int = 100
    """Calls of each version before a gate passes."""
    alpha: float = 0.01
    """The chance that a rollout of a version within all limits is rolled back."""

    def check(self) -> None:
        """Returns when they make sense.

        Raises:
            InvalidArgument: FIELD_INVALID, and which does not.
        """
        for name, good, wanted in (
            ("errors", 0 <= self.errors <= 1, "from 0 to 1"),
            ("slowdown", 1 <= self.slowdown <= 100, "from 1 to 100"),  # noqa: PLR2004 - said beside it
            ("cost", 1 <= self.cost <= 100, "from 1 to 100"),  # noqa: PLR2004 - said beside it
            ("agreement", 0 <= self.agreement <= 1, "from 0 to 1"),
            ("drift", 0 < self.drift <= 100, "above 0, to 100"),  # noqa: PLR2004 - said beside it
            ("samples", 1 <= self.samples <= 1_000_000, "from 1 to 1,000,000"),  # noqa: PLR2004 - said beside it
            ("alpha", 0 < self.alpha <= 0.1, "above 0, to 0.1"),  # noqa: PLR2004 - said beside it
        ):
            if not good:
                raise _invalid(f"limits.{name}: {wanted}.")


def _invalid(message: str) -> InvalidArgument:
    return InvalidArgument(message, reason="FIELD_INVALID")
