"""A process that ends with its supervisor, however that one ended."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from facetmesh.kit.errors import Cancelled

if TYPE_CHECKING:
    from collections.abc import Coroutine


def watch(lifeline_fd: int, stopping: asyncio.Event) -> None:
    """Sets stopping when the other end of the pipe is closed, which the system does for a killed supervisor too."""
    loop = asyncio.get_running_loop()

    def ended() -> None:
        if not os.read(lifeline_fd, 1):
            loop.remove_reader(lifeline_fd)
            stopping.set()

    os.set_blocking(lifeline_fd, False)
    loop.add_reader(lifeline_fd, ended)


async def unless(stopping: asyncio.Event, work: Coroutine[None, None, None]) -> None:
    """Does the work.

    Raises:
        Cancelled: STOPPED; the process was asked to end meanwhile.
    """
    working, stopped = asyncio.ensure_future(work), asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait([working, stopped], return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise Cancelled("The process was asked to end before it was ready.", reason="STOPPED")
        await working
    finally:
        working.cancel()
        stopped.cancel()
