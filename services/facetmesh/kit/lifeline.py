"""A process that ends with its supervisor, however that one ended."""

from __future__ import annotations

import asyncio
import os


def watch(lifeline_fd: int, stopping: asyncio.Event) -> None:
    """Sets stopping when the other end of the pipe is closed, which the system does for a killed supervisor too."""
    loop = asyncio.get_running_loop()

    def ended() -> None:
        if not os.read(lifeline_fd, 1):
            loop.remove_reader(lifeline_fd)
            stopping.set()

    os.set_blocking(lifeline_fd, False)
    loop.add_reader(lifeline_fd, ended)
