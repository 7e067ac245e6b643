"""How long a caller waits."""

from __future__ import annotations

import asyncio
import math

from facetmesh.kit import deadlines


async def test_it_counts_down_and_belongs_to_its_task() -> None:
    """None is for ever."""
    deadlines.set_current(5.0)
    assert 4.0 < deadlines.seconds_left() <= 5.0

    async def other() -> float:
        deadlines.set_current(None)
        return deadlines.seconds_left()

    assert await asyncio.create_task(other()) == math.inf
    assert deadlines.seconds_left() < 5.0
