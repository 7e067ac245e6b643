"""Rollouts from beginning to end: good ones, bad ones, and those to which things happen."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from tests.unit.rollout_world import GOOD, NAME, Behaviour, World

from facetmesh.detection.rollout.controller import LEASE_S
from facetmesh.detection.rollout.plan import BLUE_GREEN, Plan, Step
from facetmesh.detection.rollout.record import Order, Rollout, State
from facetmesh.kit.errors import Unavailable

if TYPE_CHECKING:
    from facetmesh.detection.rollout.samples import Samples

TICK_S = 20
SEEDS = 100
ERRS = Behaviour(errors=0.1)
SLOW = Behaviour(median_s=0.04, compute_s=0.03)
WAITS = Behaviour(median_s=0.04)
ELSEWHERE = Behaviour(agreement=0.2, classes=(0.1, 0.1, 0.8))
NEW = Rollout(NAME, stable=1, candidate=2, plan=Plan(window_s=60, patience_s=1200))
UNSHADOWED = replace(NEW, plan=Plan((Step(10), Step(50), Step(100))).led_in())


async def finish(world: World, ticks: int = 600) -> None:
    controller = world.controller()
    for _ in range(ticks):
        await controller.tick()
        if not world.rollout.is_active:
            return
        world.run(TICK_S)
    raise AssertionError(f"it is still {world.rollout.state} at step {world.rollout.step}")


async def until(world: World, percent: int) -> None:
    controller = world.controller()
    for _ in range(600):
        if world.split[0] == percent:
            return
        await controller.tick()
        world.run(TICK_S)
    raise AssertionError(f"it is still {world.rollout.state} at step {world.rollout.step}")


@pytest.mark.parametrize("rollouts", [5, pytest.param(100, marks=pytest.mark.full)])
@pytest.mark.parametrize("wanted", [NEW, UNSHADOWED], ids=["shadow", "look"])
async def test_a_good_version_is_never_rolled_back(wanted: Rollout, rollouts: int) -> None:
    for seed in range(rollouts):
        world = World(wanted, GOOD, seed=seed)
        await finish(world)
        assert world.rollout.state is State.DONE, (seed, list(world.heard.values())[-2])
        assert world.stable_version == 2
    assert [act for act in dict.fromkeys(world.acts) if act != "promote"] == [
        "apply 0", "apply 1", "apply 10", "apply 50", "apply 100",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("version", "cause"),
    [
        (ERRS, {"failed:errors"}),
        (SLOW, {"failed:cost"}),
        (ELSEWHERE, {"failed:agreement", "failed:classes"}),
    ],
)
async def test_a_bad_version_goes_back_from_the_shadow_and_harms_nobody(version: Behaviour, cause: set[str]) -> None:
    for seed in range(SEEDS):
        world = World(NEW, version, seed=seed)
        await finish(world)
        assert world.rollout.state is State.ROLLED_BACK
        assert world.split == (0, 0)
        assert world.stable_version == 1
        assert world.heard[2].cause in cause
        assert world.harmed == 0, seed


@pytest.mark.parametrize(
    ("calls_per_s", "rollouts"), [(100, 20), *(pytest.param(one, SEEDS, marks=pytest.mark.full) for one in (10, 100))]
)
async def test_a_version_that_waits_is_found_where_one_call_in_a_hundred_is_its_own(
    calls_per_s: int, rollouts: int
) -> None:
    """What takes longer without computing more shows in no copy; but then the shadow's calls count, too."""
    for seed in range(rollouts):
        world = World(replace(NEW, plan=Plan()), WAITS, calls_per_s=calls_per_s, seed=seed)
        await finish(world)
        assert world.rollout.state is State.ROLLED_BACK
        assert world.heard[3].step == 1
        assert world.heard[3].cause in {"failed:p50", "failed:p95", "failed:p99"}
        assert world.harmed <= 0.01 * world.served, (seed, world.harmed, world.served)


@pytest.mark.parametrize("version", [ERRS, WAITS, Behaviour(classes=(0.05, 0.05, 0.9))])
@pytest.mark.parametrize("calls_per_s", [100, pytest.param(10, marks=pytest.mark.full)])
async def test_without_a_shadow_a_bad_version_answers_at_most_one_call_in_a_hundred(
    version: Behaviour, calls_per_s: int
) -> None:
    for seed in range(SEEDS):
        world = World(UNSHADOWED, version, calls_per_s=calls_per_s, seed=seed)
        await finish(world)
        assert world.rollout.state is State.ROLLED_BACK
        assert world.heard[3].step == 1
        # It goes back within a window of the first hundred calls that it served.
        hundred_s = 100 / (0.01 * calls_per_s)
        waited_s = world.heard[3].at_s - world.heard[2].at_s
        assert calls_per_s < 100 or waited_s <= hundred_s + UNSHADOWED.plan.window_s, (seed, world.heard[3])
        assert world.harmed <= 0.01 * world.served, (seed, world.harmed, world.served)


async def test_blue_green_goes_over_at_once() -> None:
    world = World(replace(NEW, plan=replace(NEW.plan, steps=BLUE_GREEN)))
    await finish(world)
    assert list(dict.fromkeys(world.acts)) == ["apply 0", "apply 100", "promote"]


async def test_another_controller_goes_on_at_every_moment_that_one_may_die() -> None:
    """A new controller each tick, and each port away once in a while."""
    for port in ("records", "executor", "metrics", "audit"):
        world = World(NEW, seed=3)
        for tick in range(600):
            world.down = {port} if tick % 3 == 1 else set()
            world.holder = ""  # the lease of the one before is over
            with pytest.raises(Unavailable) if world.down == {"records"} else nullcontext():
                await world.controller(f"controller-{tick}").tick()
            if not world.rollout.is_active:
                break
            world.run(TICK_S)
        assert world.rollout.state is State.DONE, port
        assert sorted(world.heard) == list(range(1, world.rollout.decisions + 1))


async def test_two_controllers_never_fight() -> None:
    world = World(NEW)
    first, second = world.controller("first"), world.controller("second")
    await first.tick()
    decided = world.rollout
    await second.tick()
    assert world.rollout == decided
    world.now_s = world.until_s + 1  # the first is not heard of any more
    await second.tick()
    assert world.holder == "second"


async def test_the_one_who_lost_its_lease_on_the_way_does_nothing() -> None:
    world = World(NEW, Behaviour(errors=0.5))
    first = world.controller("first")
    await first.tick()
    world.run(TICK_S)
    asked = world.samples

    async def slowly(rollout: Rollout) -> Samples:
        found = await asked(rollout)
        world.holder = "second"
        return found

    world.samples = slowly  # type: ignore[method-assign]
    before = list(world.acts)
    await first.tick()
    assert world.acts == before
    assert world.rollout.state is State.RUNNING


async def test_who_took_longer_than_its_lease_leaves_the_split_alone() -> None:
    world = World(NEW)
    asked = world.samples

    async def slowly(rollout: Rollout) -> Samples:
        world.now_s += LEASE_S
        return await asked(rollout)

    await world.controller().tick()
    world.run(TICK_S)
    before = list(world.acts)
    world.samples = slowly  # type: ignore[method-assign]
    await world.controller().tick()
    assert world.acts == before


async def test_a_rollback_does_not_wait_for_the_audit_log_and_is_audited_later() -> None:
    world = World(NEW, Behaviour(errors=0.1))
    controller = world.controller()
    await controller.tick()
    world.run(TICK_S)
    world.down = {"audit"}
    for _ in range(4):
        await controller.tick()
        world.run(TICK_S)
    assert world.acts[-1] == "withdraw"
    assert world.rollout.state is State.ROLLED_BACK
    assert len(world.heard) == 1
    world.down = set()
    await controller.tick()
    assert [world.heard[number].state for number in (2, 3)] == [State.ROLLING_BACK, State.ROLLED_BACK]
    assert not world.rollout.is_active


async def test_nothing_is_given_to_a_new_version_while_the_audit_log_is_away() -> None:
    world = World(NEW)
    world.down = {"audit"}
    for _ in range(5):
        await world.controller().tick()
        world.run(TICK_S)
    assert world.acts == []


async def test_the_api_server_gone_in_the_middle_is_waited_for() -> None:
    world = World(NEW)
    await until(world, 10)
    world.down = {"executor"}
    controller = world.controller()
    for _ in range(4):
        await controller.tick()
        world.run(TICK_S)
    world.down = set()
    await finish(world)
    assert world.rollout.state is State.DONE


async def test_metrics_that_stay_away_end_it() -> None:
    world = World(NEW)
    await until(world, 1)
    world.down = {"metrics"}
    await finish(world)
    assert (world.rollout.state, world.heard[3].cause) == (State.ROLLED_BACK, "no_data")
    assert world.split == (0, 0)


async def test_a_pause_holds_the_split_and_an_abort_ends_it() -> None:
    world = World(NEW)
    await until(world, 10)
    world.order(Order.PAUSE)
    controller = world.controller()
    for _ in range(30):
        await controller.tick()
        world.run(TICK_S)
    assert (world.rollout.state, world.split[0]) == (State.PAUSED, 10)
    world.order(Order.ABORT)
    await finish(world)
    assert (world.rollout.state, world.split) == (State.ROLLED_BACK, (0, 0))
