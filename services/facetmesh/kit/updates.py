"""Changes of what others change at the same time: optimistic concurrency control by the state store's etags."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, TypeVar

from facetmesh.kit.errors import Aborted

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_T = TypeVar("_T")

_ATTEMPTS = 20
_SPREAD_S = 0.02
"""Up to how long who was slower waits, so that those who met once do not go on meeting."""


async def update(
    read: Callable[[], Awaitable[_T]], change: Callable[[_T], _T], write: Callable[[_T], Awaitable[object]]
) -> _T:
    """What is stored, changed. Where the change makes no difference, nothing is written.

    Args:
        read: Reads it, with its etag.
        change: What it shall be, given what it is. It is called again where another was faster.
        write: Stores it in place of what was read; raises Aborted where that was changed since.

    Returns:
        What was written, with the etag that was read.

    Raises:
        Aborted: Others were faster too often.
    """
    for _ in range(_ATTEMPTS):
        before = await read()
        after = change(before)
        if after == before:
            return before
        try:
            await write(after)
        except Aborted:
            await asyncio.sleep(random.uniform(0, _SPREAD_S))  # noqa: S311 - no secret
        else:
            return after
    raise Aborted("Too many changes at once: try again.", retry_after_s=0.1)
