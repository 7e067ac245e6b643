"""One isolation domain, as the pool keeps it."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from facetmesh.runners.memory import Footprint
    from facetmesh.runners.runner import Runner


class Domain:
    """Its calls, and its runner where it has one.

    Args:
        name: Its name, such as a tenant's id.
        concurrency: How many of its calls run at a time.
        takes: What its runner will take, as far as one can say before it is measured.
    """

    def __init__(self, name: str, concurrency: int, takes: Footprint) -> None:
        self.name = name
        self.slots = asyncio.Semaphore(concurrency)
        self.waiting = 0
        self.running = 0
        self.start: asyncio.Task[Runner] | None = None
        self.child: Runner | None = None
        """The process that was spawned last, ready or not, alive or not."""
        self.paused = False
        """Whether its process is to stand still."""
        self.served = 0
        """Calls that the present runner has ended."""
        self.answered: set[str] = set()
        """What the present runner has answered for and has not let go of since: these models are loaded."""
        self.takes = takes
        """What its runner takes of memory, as it was last measured; of the one before, while there is none."""
        self.resident = False
        """Whether it has a runner that was not told to go, or is having one spawned."""
        self.deaths = 0
        """Deaths since the last reply."""
        self.not_before = 0.0
        """When the next runner may be started, by the monotonic clock."""
        self.last_used = time.monotonic()
        self.idle_timer: asyncio.TimerHandle | None = None
        self.measure_timer: asyncio.TimerHandle | None = None

    @property
    def runner(self) -> Runner | None:
        """The runner, if it is up and takes calls."""
        if self.start is None or not self.start.done() or self.start.cancelled() or self.start.exception():
            return None
        runner = self.start.result()
        return runner if runner.alive else None

    @property
    def idle(self) -> bool:
        """Whether nothing runs and nothing waits."""
        return self.waiting == 0 and self.running == 0

    def began(self) -> None:
        """Makes it resident, and forgets the runner before."""
        self.resident = True
        self.served = 0
        self.answered.clear()
