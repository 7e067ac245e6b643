"""Versions that behave as told, and everything a controller needs, in memory."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from facetmesh.detection.rollout.controller import Controller
from facetmesh.detection.rollout.samples import BOUNDS_S, Histogram, Sample, Samples
from facetmesh.detection.rollout.sequential import Tally
from facetmesh.kit.errors import Aborted, Unavailable

if TYPE_CHECKING:
    from facetmesh.detection.rollout.record import Decision, Order, Rollout

NAME = "tenants/acme/models/faces/rollouts/1"
_SCORES = (0.0, 0.0, 0.02, 0.04, 0.06, 0.1, 0.14, 0.2, 0.26, 0.18)


@dataclass(frozen=True)
class Behaviour:
    """What a version is like."""

    errors: float = 0.002
    median_s: float = 0.02
    compute_s: float = 0.015
    agreement: float = 0.95
    """The mean F1 score against the stable version."""
    classes: tuple[float, ...] = (0.6, 0.3, 0.1)


GOOD = Behaviour()


def histogram(rng: np.random.Generator, calls: int, median_s: float) -> Histogram:
    """Times of calls, log-normal as those of servers are."""
    times = median_s * np.exp(rng.normal(0, 0.35, calls))
    places = np.searchsorted(BOUNDS_S, times)
    return Histogram(tuple(map(int, np.bincount(places, minlength=len(BOUNDS_S) + 1))))


def sample(rng: np.random.Generator, version: Behaviour, calls: int, compared: int = 0) -> Sample:
    """So many calls of a version; of `compared` of them it is known how much they agree."""
    objects = int(rng.poisson(2 * calls)) if calls else 0
    return Sample(
        errors=Tally(calls, int(rng.binomial(calls, version.errors))),
        latency=histogram(rng, calls, version.median_s),
        compute=histogram(rng, calls, version.compute_s),
        agreement=Tally(compared, float(rng.beta(version.agreement * 5, (1 - version.agreement) * 5, compared).sum())),
        scores=tuple(map(int, rng.multinomial(objects, _SCORES))),
        classes=tuple(map(int, rng.multinomial(objects, version.classes))),
        empty=int(rng.binomial(calls, 0.1)),
    )


@dataclass
class World:
    """One rollout and its surroundings; it is all ports of the controller.

    What is in `down` does not answer: records, executor, metrics, audit.
    """

    rollout: Rollout
    candidate: Behaviour = GOOD
    calls_per_s: int = 100
    seed: int = 0
    now_s: float = 1000.0
    split: tuple[int, int] = (0, 0)
    """The percent and the shadow percent that are in force."""
    stable_version: int = 1
    down: set[str] = field(default_factory=set)
    heard: dict[int, Decision] = field(default_factory=dict)
    acts: list[str] = field(default_factory=list)
    served: int = 0
    """Calls that were answered, by either version."""
    harmed: int = 0
    """Of those, by the candidate."""
    holder: str = ""
    until_s: float = 0.0

    def __post_init__(self) -> None:
        """Begins with no calls."""
        self.rng = np.random.default_rng(self.seed)
        self.rollout = replace(self.rollout, etag="0")
        self.counted = Samples()
        self.counted_since = -1.0

    def controller(self, holder: str = "one") -> Controller:
        return Controller(self, self, self, self, holder=holder, wall=lambda: self.now_s, clock=lambda: self.now_s)

    def run(self, seconds: int) -> None:
        """Has the versions answer calls for so long."""
        if self.counted_since != self.rollout.since_s:
            self.counted, self.counted_since = Samples(), self.rollout.since_s
        percent, shadow = self.split
        calls = seconds * self.calls_per_s
        mine = int(self.rng.binomial(calls, percent / 100))
        copies = int(self.rng.binomial(calls - mine, shadow / 100))
        self.counted = Samples(
            self.counted.stable + sample(self.rng, GOOD, calls - mine),
            self.counted.candidate + sample(self.rng, self.candidate, mine + copies, copies),
        )
        self.served += calls
        self.harmed += mine
        self.now_s += seconds

    # Records
    async def active(self) -> list[str]:
        self._answer("records")
        return [NAME] if self.rollout.is_active else []

    async def lease(self, name: str, holder: str, seconds: float) -> Rollout | None:
        self._answer("records")
        assert name == NAME
        if self.holder not in {"", holder} and self.now_s < self.until_s:
            return None
        self.holder, self.until_s = holder, self.now_s + seconds
        return self.rollout

    async def report(self, rollout: Rollout, holder: str) -> Rollout:
        self._answer("records")
        if rollout.etag != self.rollout.etag or holder != self.holder:
            raise Aborted("Somebody else changed it.")
        self.rollout = replace(rollout, etag=str(int(rollout.etag) + 1))
        return self.rollout

    # Executor
    async def apply(self, rollout: Rollout) -> None:
        self._answer("executor")
        self.split = (rollout.current.percent, rollout.current.shadow_percent)
        self.acts.append(f"apply {self.split[0]}")

    async def promote(self, rollout: Rollout) -> None:
        self._answer("executor")
        self.split, self.stable_version = (0, 0), rollout.candidate
        self.acts.append("promote")

    async def withdraw(self, rollout: Rollout) -> None:
        self._answer("executor")
        self.split = (0, 0)
        self.acts.append("withdraw")

    # Metrics
    async def samples(self, rollout: Rollout) -> Samples:
        self._answer("metrics")
        return self.counted if self.counted_since == rollout.since_s else Samples()

    # Audit
    async def decided(self, rollout: Rollout, decision: Decision) -> None:
        self._answer("audit")
        assert self.heard.setdefault(decision.number, decision) == decision

    def _answer(self, port: str) -> None:
        if port in self.down:
            raise Unavailable(f"{port} is away.")

    def order(self, order: Order) -> None:
        """What the API does."""
        self.rollout = replace(self.rollout, order=order, etag=str(int(self.rollout.etag) + 1))
