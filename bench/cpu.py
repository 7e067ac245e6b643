"""What servers really cost: the processor time of all their processes.

Where others work on the machine, images a second say little, and this still
says something: what a server needs of a core for an image.
"""

from __future__ import annotations

from contextlib import suppress

import psutil


def tree_seconds(pid: int) -> float:
    """Processor time of a process and all that it started and that live, in seconds."""
    root = psutil.Process(pid)
    total = 0.0
    for process in (root, *root.children(recursive=True)):
        with suppress(psutil.Error):  # it ended meanwhile
            times = process.cpu_times()
            total += times.user + times.system
    return total
