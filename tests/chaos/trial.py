"""One fault, tried as often as asked for."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from .load import Load, account, served
from .results import ROUNDS, Result

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .world import World

_SETTLED = 2
"""After so many tries, everything that is kept in memory has been there once."""
_TELLING = 10
"""With fewer tries, memory tells nothing."""
_MOST_GROWTH = 1.3
_QUICK_S = 120.0
"""The promise is ten seconds, on a machine of its own; the table has what was measured."""


async def try_out(world: World, fault: str, harm: Callable[[], Awaitable[None]]) -> Result:
    """Does harm under load, again and again, and checks after each time that nothing is lost and all serve again.

    Args:
        world: The mesh.
        fault: What is done, in words.
        harm: Does it; returns when the fault is over.

    Returns:
        What was seen; it has been written down.
    """
    result = Result(fault, world.provider)
    settled = 0
    load = Load(world)
    for number in range(1, ROUNDS + 1):
        async with load.running():
            await harm()
            over = time.monotonic()
            await served(world)
            result.back_s.append(round(time.monotonic() - over, 2))
            await load.goes_on()
        await account(world, load)
        if number == _SETTLED:
            settled = world.memory()
    result.count(load)
    if ROUNDS >= _TELLING:
        result.memory_ratio = round(world.memory() / settled, 2)
        assert result.memory_ratio < _MOST_GROWTH
    assert max(result.back_s) < _QUICK_S
    assert result.receipts
    assert result.fusions
    result.keep()
    return result
