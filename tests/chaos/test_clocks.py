"""Clocks that are five minutes apart: no service and no client may depend on another's."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from facetmesh.cli.mesh.ports import SERVICES

from .load import Load, account
from .parts import parts
from .results import LASTS_S, ROUNDS, Result
from .world import World

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.full
APART_S = 300
TRIES = 2
"""Time and again the same would happen."""
LIFETIME_S = APART_S - 25
"""A token's, so that who is ahead by APART_S takes it for five seconds only (with the skew that is allowed)."""


CASES = [(service, sign * APART_S) for service in SERVICES for sign in (1, -1)]
SHORT = [("auth", APART_S), ("auth", -APART_S), ("detection", APART_S)]
"""Tokens are made by auth's clock, and expire soonest where detection is ahead."""


@pytest.mark.parametrize(("service", "apart_s"), CASES if ROUNDS > 1 else SHORT)
async def test_a_service_whose_clock_is_wrong_serves(
    tmp_path: Path, assets: object, astronaut: bytes, group: bytes, service: str, apart_s: int,
) -> None:
    assert assets
    direction = "ahead" if apart_s > 0 else "behind"
    result = Result(f"the clock of {service} is {APART_S // 60} min {direction}", "embedded")
    variables: dict[str, dict[str, str]] = {service: {"FACETMESH_CLOCK_OFFSET_S": str(apart_s)}}
    tokens_expire = (service, direction) == ("detection", "ahead")
    if tokens_expire:
        variables["auth"] = {"FACETMESH_TOKEN_LIFETIME_S": str(LIFETIME_S)}
    for number in range(min(ROUNDS, TRIES)):
        async with parts(tmp_path / f"home{number}", variables=variables) as made:
            began = time.monotonic()
            await made.mesh.serving()
            result.back_s.append(round(time.monotonic() - began, 2))
            world = World(made.mesh, "embedded", astronaut, group)
            await asyncio.to_thread(lambda world=world: world.key)
            load = Load(world)
            async with load.running():
                await asyncio.sleep(LASTS_S if tokens_expire else 0)
                await load.goes_on()
            assert not [why for why in load.refusals if why.startswith("UNAUTHENTICATED")]
            await account(world, load)
            result.count(load)
    result.keep()
