"""Rollouts as the API keeps them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from facetmesh.detection.models import Models
from facetmesh.detection.rollout.plan import BLUE_GREEN, Limits, Plan, Step
from facetmesh.detection.rollout.record import Order, Rollout, State
from facetmesh.detection.rollout.rollouts import Rollouts
from facetmesh.detection.rollout.store import DaprRolloutStore
from facetmesh.detection.splits import Traffic
from facetmesh.detection.store import DaprStore
from facetmesh.detection.versions import Facts, Version
from facetmesh.kit.errors import (
    Aborted,
    AlreadyExists,
    FacetmeshError,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Unavailable,
)

if TYPE_CHECKING:
    from .conftest import Clock, MemoryState

FACTS = Facts(("face",), "detect", 64, 64)
QUARANTINED = 5
MODEL = "tenants/acme/models/faces"
FIRST, SECOND = f"{MODEL}/rollouts/first", f"{MODEL}/rollouts/second"


@pytest.fixture
async def models(state: MemoryState, clock: Clock) -> Models:
    """A model with a stable version, a good new one, other labels, another task, and one in quarantine."""
    models = Models(DaprStore(state), clock=clock)  # type: ignore[arg-type]
    for facts in (FACTS, FACTS, replace(FACTS, labels=("cat",)), replace(FACTS, task="segment"), FACTS):
        await models.add(Version("acme", "faces", 0, "a" * 64, 10, "MIT", facts, 5.0))
    return models


@pytest.fixture
def rollouts(models: Models, state: MemoryState, clock: Clock) -> Rollouts:
    return Rollouts(
        models, DaprRolloutStore(state),  # type: ignore[arg-type]
        is_quarantined=lambda version: version.number == QUARANTINED, clock=clock,
    )  # fmt: skip


async def start(rollouts: Rollouts, to: str = "2", name: str = FIRST, plan: Plan | None = None) -> Rollout:
    return await rollouts.start(name, to=to, plan=plan or Plan(), limits=Limits())


async def end(rollouts: Rollouts, rollout: Rollout, *, audited: bool = True) -> Rollout:
    leased = await rollouts.lease(rollout.name, "one", 15)
    assert leased is not None
    over = leased.decide(State.ROLLED_BACK, "aborted", 6.0)
    return await rollouts.report(replace(over, outbox=()) if audited else over, "one")


async def test_a_rollout_is_kept_as_it_was_started(rollouts: Rollouts) -> None:
    begun = await start(rollouts, plan=Plan(BLUE_GREEN, window_s=7))
    assert await rollouts.get(FIRST) == begun
    assert (begun.tenant_id, begun.model_id, begun.id) == ("acme", "faces", "first")
    assert (begun.stable, begun.candidate) == (1, 2)
    assert (begun.order, begun.state, begun.is_active) == (Order.RUN, State.PENDING, True)
    assert (await rollouts.active(), await rollouts.ids(MODEL)) == ([FIRST], ["first"])


@pytest.mark.parametrize(
    ("to", "error", "reason"),
    [
        ("1", FailedPrecondition, "ALREADY_STABLE"),
        ("stable", FailedPrecondition, "ALREADY_STABLE"),
        ("3", FailedPrecondition, "LABELS_DIFFER"),
        ("4", FailedPrecondition, "TASK_DIFFERS"),
        ("5", FailedPrecondition, "VERSION_QUARANTINED"),
        ("6", NotFound, "VERSION_NOT_FOUND"),
        ("canary", NotFound, "VERSION_NOT_FOUND"),
    ],
)
async def test_a_version_that_cannot_take_over_is_refused(
    rollouts: Rollouts, to: str, error: type[FacetmeshError], reason: str
) -> None:
    with pytest.raises(error) as refused:
        await start(rollouts, to)
    assert refused.value.reason == reason


async def test_a_plan_that_makes_no_sense_is_refused(rollouts: Rollouts) -> None:
    with pytest.raises(InvalidArgument, match="100 percent"):
        await start(rollouts, plan=Plan((Step(10), Step(90))))
    with pytest.raises(InvalidArgument, match=r"limits\.samples"):
        await rollouts.start(FIRST, to="2", plan=Plan(), limits=Limits(samples=0))
    with pytest.raises(NotFound):
        await rollouts.start("tenants/acme/models/cats/rollouts/first", to="2", plan=Plan(), limits=Limits())


async def test_a_split_of_the_tenants_own_is_not_taken_over(rollouts: Rollouts, models: Models) -> None:
    model = await models.get("acme", "faces")
    await models.update(replace(model, traffic=Traffic((("1", 90), ("2", 10)))))
    with pytest.raises(FailedPrecondition) as refused:
        await start(rollouts)
    assert refused.value.reason == "TRAFFIC_SPLIT"


async def test_a_model_has_one_rollout_at_a_time(rollouts: Rollouts) -> None:
    first = await start(rollouts)
    with pytest.raises(AlreadyExists):
        await start(rollouts)
    with pytest.raises(FailedPrecondition, match="already"):
        await start(rollouts, name=SECOND)
    over = await end(rollouts, first)
    assert await rollouts.active() == []
    second = await start(rollouts, name=SECOND)
    assert (await rollouts.get(FIRST)).history == over.history
    assert await rollouts.get(SECOND) == second
    assert await rollouts.ids(MODEL) == ["first", "second"]
    with pytest.raises(AlreadyExists):
        await start(rollouts)
    with pytest.raises(Aborted):  # who still holds the one before
        await rollouts.report(over, "one")


async def test_of_two_that_start_at_once_one_does(rollouts: Rollouts, state: MemoryState) -> None:
    begun = await start(rollouts)
    with pytest.raises(Aborted):
        await DaprRolloutStore(state).put_current(replace(begun, name=SECOND, etag=""))  # type: ignore[arg-type]


async def test_what_is_not_audited_is_not_forgotten_and_the_next_waits_for_it(
    rollouts: Rollouts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("facetmesh.detection.rollout.rollouts._LOOK_AGAIN_S", 0.01)
    over = await end(rollouts, await start(rollouts), audited=False)
    assert (over.state, over.is_active, await rollouts.active()) == (State.ROLLED_BACK, True, [FIRST])
    with pytest.raises(Unavailable) as refused:
        await start(rollouts, name=SECOND)
    assert (refused.value.reason, refused.value.retry_after_s) == ("ROLLOUT_ENDING", 1)
    monkeypatch.setattr("facetmesh.detection.rollout.rollouts._ENDING_LOOKS", 100_000)
    following = asyncio.create_task(start(rollouts, name=SECOND))
    await asyncio.sleep(0.05)
    assert not following.done()
    await rollouts.report(replace(over, outbox=()), "one")
    assert (await following).name == SECOND


async def test_orders_are_taken_until_the_end_is_decided(rollouts: Rollouts) -> None:
    begun = await start(rollouts)
    paused = await rollouts.order(FIRST, Order.PAUSE)
    assert await rollouts.order(FIRST, Order.PAUSE) == paused
    await rollouts.order(FIRST, Order.RUN)
    await rollouts.order(FIRST, Order.ABORT)
    with pytest.raises(FailedPrecondition, match="decided"):
        await rollouts.order(FIRST, Order.RUN)
    await end(rollouts, begun)
    with pytest.raises(FailedPrecondition, match="decided"):
        await rollouts.order(FIRST, Order.PROMOTE)
    with pytest.raises(NotFound):
        await rollouts.order(SECOND, Order.PROMOTE)


async def test_a_rollout_is_leased_to_one_controller_at_a_time(rollouts: Rollouts, clock: Clock) -> None:
    await start(rollouts)
    assert await rollouts.lease(FIRST, "one", 15) is not None
    assert await rollouts.lease(FIRST, "two", 15) is None
    renewed = await rollouts.lease(FIRST, "one", 15)
    assert renewed is not None
    with pytest.raises(Aborted):
        await rollouts.report(renewed, "two")
    clock.now += 15
    with pytest.raises(Aborted) as late:
        await rollouts.report(renewed, "one")
    assert late.value.reason == "LEASE_LOST"
    taken = await rollouts.lease(FIRST, "two", 15)
    assert taken is not None
    assert taken.holder == "two"


async def test_a_report_over_what_was_not_read_is_refused(rollouts: Rollouts) -> None:
    await start(rollouts)
    leased = await rollouts.lease(FIRST, "one", 15)
    assert leased is not None
    await rollouts.order(FIRST, Order.ABORT)
    with pytest.raises(Aborted):
        await rollouts.report(leased.decide(State.RUNNING, "started", 6.0), "one")
    assert (await rollouts.get(FIRST)).order is Order.ABORT


async def test_nothing_is_left_of_a_models_rollouts(rollouts: Rollouts, state: MemoryState) -> None:
    await end(rollouts, await start(rollouts))
    await start(rollouts, name=SECOND)
    await DaprRolloutStore(state).delete_all(MODEL)  # type: ignore[arg-type]
    assert [key for key in state.entries if "/rollout" in key] == []
    assert await rollouts.active() == []
