"""Processes that are killed, or that hang, under load."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

import pytest

from .results import LASTS_S
from .trial import try_out
from .world import until

if TYPE_CHECKING:
    from .world import World

pytestmark = pytest.mark.full
SERVICES = ("auth", "detection", "fusion", "audit")
RUNNERS = ("detection runner", "fusion runner")
STATE = {"embedded": "sidecar", "daprd": "redis"}
"""What keeps state and events."""


def sidecars(provider: str) -> tuple[str, ...]:
    """The processes that are sidecars."""
    return ("sidecar",) if provider == "embedded" else tuple(f"daprd-{service}" for service in SERVICES)


@pytest.mark.parametrize("victim", ["sidecar", *SERVICES, *RUNNERS])
async def test_a_killed_process_is_replaced_and_nothing_is_lost(world: World, victim: str) -> None:
    if victim == "sidecar":
        victims = sidecars(world.provider)
        name = "a sidecar"
    else:
        victims = (victim,)
        name = f"the {victim}" if victim.endswith("runner") else f"the {victim} service"
    number = 0

    async def kill() -> None:
        nonlocal number
        victim = victims[number % len(victims)]
        number += 1
        world.kill(victim)

    result = await try_out(world, f"kill -9 of {name}", kill)
    assert number == len(result.back_s)


async def test_what_keeps_state_hangs(world: World) -> None:
    async def hang() -> None:
        async with world.stopped(STATE[world.provider]):
            await asyncio.sleep(LASTS_S)

    await try_out(world, f"the {STATE[world.provider]} hangs for {LASTS_S} s", hang)


async def test_what_keeps_state_hangs_and_is_killed(world: World) -> None:
    async def hang_and_die() -> None:
        async with world.stopped(STATE[world.provider]) as pid:
            await asyncio.sleep(LASTS_S)
            os.kill(pid, signal.SIGKILL)
        await until(lambda: world.mesh.has_replaced(STATE[world.provider], pid), "it is replaced")

    await try_out(world, f"the {STATE[world.provider]} hangs for {LASTS_S} s, then kill -9", hang_and_die)
