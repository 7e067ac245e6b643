"""Rollouts as the API keeps them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from facetmesh.detection.models import Models
from facetmesh.detection.rollout_store import DaprRolloutStore
from facetmesh.detection.rollouts import Rollout, Rollouts
from facetmesh.detection.store import DaprStore
from facetmesh.detection.versions import Facts, Version
from facetmesh.kit.errors import Aborted, AlreadyExists, FacetmeshError, FailedPrecondition, InvalidArgument, NotFound
from facetmesh.kit.rollouts import BLUE_GREEN, Limits, Plan, Step

if TYPE_CHECKING:
    from .conftest import Clock, MemoryState

FACTS = Facts(("face",), "detect", 64, 64)
QUARANTINED = 5


@pytest.fixture
async def rollouts(state: MemoryState, clock: Clock) -> Rollouts:
    """A model with a stable version, a good new one, other labels, another task, and one in quarantine."""
    models = Models(DaprStore(state), clock=clock)  # type: ignore[arg-type]
    for facts in (FACTS, FACTS, replace(FACTS, labels=("cat",)), replace(FACTS, task="segment"), FACTS):
        await models.add(Version("acme", "faces", 0, "a" * 64, 10, "MIT", facts, 5.0))
    return Rollouts(
        models, DaprRolloutStore(state),  # type: ignore[arg-type]
        is_quarantined=lambda version: version.number == QUARANTINED, clock=clock,
    )  # fmt: skip


async def start(rollouts: Rollouts, to: str = "2", rollout_id: str = "first", plan: Plan | None = None) -> Rollout:
    return await rollouts.start("acme", "faces", rollout_id, to=to, plan=plan or Plan(), limits=Limits())


async def end(rollouts: Rollouts, rollout: Rollout, *, unaudited: bool = False) -> Rollout:
    leased = await rollouts.lease(rollout, "one", 15)
    assert leased is not None
    return await rollouts.report(
        leased, "one", etag=leased.etag, state="rolled_back", progress="{}", unaudited=unaudited
    )


async def test_a_rollout_is_kept_as_it_was_started(rollouts: Rollouts) -> None:
    begun = await start(rollouts, plan=Plan(BLUE_GREEN, window_s=7))
    assert await rollouts.get("acme", "faces", "first") == begun
    assert (begun.name, begun.stable, begun.candidate) == ("tenants/acme/models/faces/rollouts/first", 1, 2)
    assert (begun.order, begun.state, begun.is_active) == ("run", "pending", True)


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
        await rollouts.start("acme", "faces", "first", to="2", plan=Plan(), limits=Limits(samples=0))
    with pytest.raises(NotFound):
        await rollouts.start("acme", "cats", "first", to="2", plan=Plan(), limits=Limits())


async def test_a_model_has_one_rollout_at_a_time(rollouts: Rollouts) -> None:
    first = await start(rollouts)
    with pytest.raises(AlreadyExists):
        await start(rollouts)
    with pytest.raises(FailedPrecondition, match="already"):
        await start(rollouts, rollout_id="second")
    over = await end(rollouts, first)
    second = await start(rollouts, rollout_id="second")
    assert (await rollouts.get("acme", "faces", "first")).state == "rolled_back"
    assert await rollouts.get("acme", "faces", "second") == second
    with pytest.raises(AlreadyExists):
        await start(rollouts)
    with pytest.raises(Aborted):  # who still holds the one before
        await end(rollouts, over)


async def test_of_two_that_start_at_once_one_does(rollouts: Rollouts, state: MemoryState) -> None:
    begun = await start(rollouts)
    with pytest.raises(Aborted):
        await DaprRolloutStore(state).put_current(replace(begun, id="second", etag=""))  # type: ignore[arg-type]


async def test_what_is_not_audited_is_not_forgotten(rollouts: Rollouts) -> None:
    over = await end(rollouts, await start(rollouts), unaudited=True)
    assert (over.is_over, over.is_active) == (True, True)
    with pytest.raises(FailedPrecondition):
        await start(rollouts, rollout_id="second")


async def test_orders_are_taken_until_the_end_is_decided(rollouts: Rollouts) -> None:
    paused = await rollouts.order(await start(rollouts), "pause")
    assert await rollouts.order(paused, "pause") is paused
    aborted = await rollouts.order(await rollouts.order(paused, "run"), "abort")
    with pytest.raises(FailedPrecondition, match="decided"):
        await rollouts.order(aborted, "run")
    with pytest.raises(FailedPrecondition, match="decided"):
        await rollouts.order(await end(rollouts, aborted), "promote")
    with pytest.raises(Aborted):
        await rollouts.order(paused, "promote")


async def test_a_rollout_is_leased_to_one_controller_at_a_time(rollouts: Rollouts, clock: Clock) -> None:
    first = await rollouts.lease(await start(rollouts), "one", 15)
    assert first is not None
    assert await rollouts.lease(first, "two", 15) is None
    renewed = await rollouts.lease(first, "one", 15)
    assert renewed is not None
    with pytest.raises(Aborted):
        await rollouts.report(renewed, "two", etag=renewed.etag, state="running", progress="", unaudited=False)
    clock.now += 15
    with pytest.raises(Aborted) as late:
        await rollouts.report(renewed, "one", etag=renewed.etag, state="running", progress="", unaudited=False)
    assert late.value.reason == "LEASE_LOST"
    taken = await rollouts.lease(renewed, "two", 15)
    assert taken is not None
    assert taken.holder == "two"


async def test_a_report_over_what_was_not_read_is_refused(rollouts: Rollouts) -> None:
    leased = await rollouts.lease(await start(rollouts), "one", 15)
    assert leased is not None
    ordered = await rollouts.order(leased, "abort")
    with pytest.raises(Aborted):
        await rollouts.report(ordered, "one", etag=leased.etag, state="running", progress="", unaudited=False)
    assert (await rollouts.get("acme", "faces", "first")).order == "abort"
