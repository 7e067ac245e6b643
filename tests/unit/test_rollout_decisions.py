"""What follows from the record and the figures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.unit.rollout_world import GOOD, NAME, Behaviour, sample

from facetmesh.detection.rollout.decisions import carried_out, obey, watch
from facetmesh.detection.rollout.gates import Baseline
from facetmesh.detection.rollout.plan import CANARY, LOOK, Plan, Step
from facetmesh.detection.rollout.record import Order, Rollout, State
from facetmesh.detection.rollout.samples import Samples

NEW = Rollout(NAME, stable=1, candidate=2)
STABLE = sample(np.random.default_rng(1), GOOD, 20_000)


def samples(version: Behaviour = GOOD, calls: int = 2000) -> Samples:
    return Samples(STABLE, sample(np.random.default_rng(2), version, calls, compared=calls))


def running(step: int = 0, **changes: object) -> Rollout:
    rollout = obey(NEW, 100.0)
    return replace(rollout, step=step, outbox=(), baseline=Baseline.of(STABLE), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("state", "order", "after"),
    [
        (State.PENDING, Order.RUN, State.RUNNING),
        (State.PENDING, Order.PAUSE, State.PENDING),
        (State.PENDING, Order.ABORT, State.ROLLING_BACK),
        (State.PENDING, Order.PROMOTE, State.PROMOTING),
        (State.RUNNING, Order.RUN, State.RUNNING),
        (State.RUNNING, Order.PAUSE, State.PAUSED),
        (State.RUNNING, Order.ABORT, State.ROLLING_BACK),
        (State.RUNNING, Order.PROMOTE, State.PROMOTING),
        (State.PAUSED, Order.RUN, State.RUNNING),
        (State.PAUSED, Order.PAUSE, State.PAUSED),
        (State.PAUSED, Order.ABORT, State.ROLLING_BACK),
        *((state, order, state) for order in Order for state in State
          if state in {State.PROMOTING, State.ROLLING_BACK, State.DONE, State.ROLLED_BACK}),
    ],
)  # fmt: skip
def test_orders_are_obeyed_until_it_is_decided(state: State, order: Order, after: State) -> None:
    rollout = replace(NEW, state=state, order=order)
    obeyed = obey(rollout, 5.0)
    assert obeyed.state is after
    assert (obeyed is rollout) == (state is after)
    assert len(obeyed.outbox) == (state is not after)


def test_a_step_that_passes_is_left_when_its_window_is_over_and_not_before() -> None:
    rollout = running()
    assert watch(rollout, samples(), 399.0).step == 0
    later = watch(rollout, samples(), 400.0)
    assert (later.state, later.step, later.since_s) == (State.RUNNING, 1, 400.0)
    assert later.reference == STABLE
    assert later.outbox[0].cause == "passed"
    assert {finding.gate for finding in later.outbox[0].findings} >= {"errors", "agreement"}


@pytest.mark.parametrize("steps", [(LOOK, *CANARY[1:]), CANARY])
def test_the_first_calls_come_after_enough_of_the_stable_versions(steps: tuple[Step, ...]) -> None:
    rollout = running(plan=Plan(steps))
    early = replace(samples(), stable=sample(np.random.default_rng(1), GOOD, 4999))
    assert watch(rollout, early, 400.0).step == 0
    given_up = watch(rollout, early, 3700.0)
    assert (given_up.state, given_up.outbox[0].cause) == (State.ROLLING_BACK, "undecided:calls")
    later = watch(rollout, replace(early, stable=sample(np.random.default_rng(1), GOOD, 5000)), 400.0)
    assert (later.state, later.step) == (State.RUNNING, 1)
    assert next(one for one in later.outbox[0].findings if one.gate == "calls").limit == 5000


def test_a_look_needs_no_calls_of_the_new_version() -> None:
    only = Samples(STABLE)
    assert watch(running(plan=Plan((LOOK, *CANARY[1:]))), only, 400.0).step == 1
    assert watch(running(), only, 400.0).step == 0


def test_the_last_step_is_compared_with_the_one_before_it() -> None:
    last = len(NEW.plan.steps) - 1
    rollout = running(last, reference=STABLE)
    only = replace(samples(), stable=sample(np.random.default_rng(0), GOOD, 0))
    assert watch(rollout, only, 400.0).state is State.PROMOTING
    slow = replace(only, candidate=sample(np.random.default_rng(2), Behaviour(median_s=0.04), 2000))
    assert watch(rollout, slow, 101.0).state is State.ROLLING_BACK


def test_a_failure_is_decided_at_once_with_its_figures() -> None:
    after = watch(running(1), samples(Behaviour(errors=0.1)), 101.0)
    assert (after.state, after.outbox[0].cause) == (State.ROLLING_BACK, "failed:errors")
    assert next(finding for finding in after.outbox[0].findings if finding.gate == "errors").candidate > 0.05


def test_a_pause_goes_nowhere_but_back() -> None:
    paused = running(1, state=State.PAUSED)
    assert watch(paused, samples(), 1e6) == paused
    assert watch(paused, samples(Behaviour(errors=0.1)), 101.0).state is State.ROLLING_BACK


def test_nothing_known_waits_and_then_goes_back() -> None:
    assert watch(running(), Samples(), 3699.0).state is State.RUNNING
    after = watch(running(), Samples(), 3700.0)
    assert (after.state, after.outbox[0].cause) == (State.ROLLING_BACK, "no_data")


def test_a_doubt_that_lasts_goes_back() -> None:
    doubtful = samples(Behaviour(errors=0.016), 2000)
    after = watch(running(1), doubtful, 3700.0)
    assert (after.state, after.outbox[0].cause) == (State.ROLLING_BACK, "undecided:errors")


def test_what_is_not_audited_is_not_gone_on_from() -> None:
    unheard = replace(running(), outbox=obey(NEW, 100.0).outbox)
    assert watch(unheard, samples(), 400.0) == unheard
    assert watch(unheard, samples(), 3700.0).outbox[-1].cause == "unaudited"
    assert watch(unheard, samples(Behaviour(agreement=0.2)), 101.0).state is State.ROLLING_BACK


def test_the_baseline_is_fixed_once() -> None:
    rollout = replace(running(), baseline=None)
    first = watch(rollout, samples(calls=10), 101.0)
    assert first.baseline == Baseline.of(STABLE)
    slower = replace(samples(calls=10), stable=sample(np.random.default_rng(5), Behaviour(median_s=1.0), 20_000))
    assert watch(first, slower, 102.0).baseline == first.baseline


def test_what_was_carried_out_is_over() -> None:
    for state, after in ((State.PROMOTING, State.DONE), (State.ROLLING_BACK, State.ROLLED_BACK)):
        over = carried_out(replace(NEW, state=state), 7.0)
        assert over.state is after
        assert over.is_active  # until the log has it
        assert not replace(over, outbox=()).is_active
        assert watch(over, samples(), 1e6) is over
