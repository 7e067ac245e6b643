"""A sidecar that is slow, answers garbage, or is not there at start."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from .load import Load, account
from .parts import Interposed, parts
from .proxy import Mood
from .results import LASTS_S, ROUNDS, Result
from .trial import try_out
from .world import World

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.full
LATE_S = 5
STARTS = 3


@pytest.fixture
async def interposed(tmp_path: Path, assets: object) -> AsyncIterator[Interposed]:
    """A mesh of parts."""
    assert assets
    async with parts(tmp_path / "home") as made:
        yield made


async def world_of(made: Interposed, source: bytes, target: bytes) -> World:
    """With a tenant, once all serve."""
    await made.mesh.serving()
    world = World(made.mesh, "embedded", source, target)
    await asyncio.to_thread(lambda: world.key)
    return world


@pytest.mark.parametrize("mood", [Mood.SLOW, Mood.GARBAGE])
async def test_a_sidecar_that_misbehaves_loses_nothing(
    interposed: Interposed, astronaut: bytes, group: bytes, mood: Mood,
) -> None:
    async def misbehave() -> None:
        for proxy in interposed.proxies:
            proxy.mood = mood
        await asyncio.sleep(LASTS_S)
        for proxy in interposed.proxies:
            proxy.mood = Mood.WELL
            if mood is Mood.GARBAGE:
                await proxy.cut()

    what = {Mood.SLOW: "the sidecars answer 2 s late", Mood.GARBAGE: "the sidecars answer garbage"}[mood]
    await try_out(await world_of(interposed, astronaut, group), f"{what} for {LASTS_S} s", misbehave)


async def test_a_sidecar_that_is_not_there_at_start_is_waited_for(
    tmp_path: Path, assets: object, astronaut: bytes, group: bytes,
) -> None:
    assert assets
    result = Result(f"the sidecar comes {LATE_S} s after the services", "embedded")
    for number in range(min(ROUNDS, STARTS)):
        async with parts(tmp_path / f"home{number}", late=True) as made:
            await asyncio.sleep(LATE_S)
            assert all(process.poll() is None for process in made.mesh.started.values()), "they wait"
            made.mesh.start_sidecar()
            over = time.monotonic()
            await made.mesh.serving()
            result.back_s.append(round(time.monotonic() - over, 2))
            world = await world_of(made, astronaut, group)
            load = Load(world)
            async with load.running():
                await load.goes_on()
            await account(world, load)
            result.count(load)
    result.keep()
