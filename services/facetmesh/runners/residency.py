"""Which domains have a runner at a time: there are places for so many, and memory for so much."""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import TYPE_CHECKING

from facetmesh.kit.errors import ResourceExhausted
from facetmesh.runners.memory import Footprint

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence

    from facetmesh.runners.domain import Domain
    from facetmesh.runners.runner import Runner
    from facetmesh.runners.settings import PoolLimits

logger = logging.getLogger(__name__)

_RETRY_S = 5.0


class Residency:
    """Lets runners in while there is room, and has others make it.

    Args:
        domains: All there are, as the pool knows them at each moment.
        limits: Places and memory, the machine's and its cards'.
        pinned: Whether a domain's runner stays, whoever wants its place.
        evict: Tells a domain's runner to go when its calls have ended.
    """

    def __init__(
        self,
        domains: Mapping[str, Domain],
        limits: PoolLimits,
        *,
        pinned: Callable[[str], bool],
        evict: Callable[[Domain], None],
    ) -> None:
        self.evicted = 0
        """How many runners had to make room for others so far."""
        self._domains = domains
        gpu_bytes = sys.maxsize if limits.gpu_memory_bytes is None else limits.gpu_memory_bytes
        self._budget = Footprint(limits.memory_bytes, gpu_bytes)
        self._pinned = pinned
        self._tell_to_go = evict
        self._places = asyncio.Semaphore(limits.runners)
        self._starts_waiting = 0
        self._admission = asyncio.Lock()
        self._changed = asyncio.Event()
        self._leaving: dict[Runner, Footprint] = {}
        """Runners that were told to go, and the memory that they take until then."""

    async def enter(self, state: Domain) -> None:
        """Returns when there is a place and memory for the domain's runner; `left` gives the place back.

        Raises:
            ResourceExhausted: MEMORY_BUDGET: only pinned ones are there, and they fill it.
        """
        self._starts_waiting += 1
        try:
            self._make_room()
            await self._places.acquire()
        finally:
            self._starts_waiting -= 1
        try:
            await self._admit(state)
        except BaseException:
            self._places.release()
            raise

    def left(self) -> None:
        """A runner's process is gone, or was never made."""
        self._places.release()
        self._changed.set()

    def changed(self) -> None:
        """A call has ended: its runner may be idle now."""
        self._changed.set()
        self._make_room()

    def grown(self) -> None:
        """A runner was measured anew."""
        self._free_memory(self._in_use() - self._budget)

    def leave(self, runner: Runner, takes: Footprint, *, drain: bool) -> Coroutine[None, None, None]:
        """Counts a runner as leaving from now on, and returns what closes it."""
        self._leaving[runner] = takes
        return self._close(runner, drain=drain)

    async def _close(self, runner: Runner, *, drain: bool) -> None:
        try:
            await runner.close(drain=drain)
        finally:
            del self._leaving[runner]
            self._changed.set()

    async def _admit(self, state: Domain) -> None:
        """Waits until there is memory for the domain's runner; starts are admitted in the order in which they come."""
        async with self._admission:
            while short := self._in_use() + state.takes - self._budget:
                others = [
                    other.name for other in self._domains.values() if other.resident and other.takes.eases(short)
                ]
                if not others and not self._leaving:
                    break  # it would not get less by waiting
                if not self._leaving and all(map(self._pinned, others)):
                    raise ResourceExhausted(
                        "There is no memory for another model now.", reason="MEMORY_BUDGET", retry_after_s=_RETRY_S
                    )
                self._free_memory(short)
                self._changed.clear()
                await self._changed.wait()
            state.began()

    def _in_use(self) -> Footprint:
        """What runners take that are up or about to be; those that leave are still there."""
        present = (state.takes for state in self._domains.values() if state.resident)
        return sum((*present, *self._leaving.values()), Footprint())

    def _free_memory(self, short: Footprint) -> None:
        """Lets idle runners go until so much will be free, else a busy one."""
        short -= sum(self._leaving.values(), Footprint())
        victims: list[Domain] = []
        for state in self._evictable():
            if not short:
                break
            if not state.takes.eases(short):
                continue
            if state.idle or not (victims or self._draining()):
                victims.append(state)
                short -= state.takes
        self._evict(victims)

    def _make_room(self) -> None:
        """Lets as many runners go as starts wait for a place."""
        draining = self._draining()
        short = self._starts_waiting - (len(self._leaving) - draining)
        if short <= 0 or not self._places.locked():
            return
        idle = [state for state in self._evictable() if state.idle][:short]
        # Those that drain will make room in time, but whoever is idle does so now.
        busy = [state for state in self._evictable() if not state.idle]
        self._evict([*idle, *busy[: max(0, short - len(idle) - draining)]])

    def _draining(self) -> int:
        return sum(runner.calls > 0 for runner in self._leaving)

    def _evictable(self) -> Iterator[Domain]:
        """Whose runner may go: idle ones first, and then the least recently used.

        A busy one goes only after it has ended a call, and then when its present
        calls have ended, so that every domain gets on, however many there are.
        """
        states = [
            state
            for state in self._domains.values()
            if state.runner is not None and (state.idle or state.served) and not self._pinned(state.name)
        ]
        yield from sorted(states, key=lambda state: (not state.idle, state.last_used))

    def _evict(self, victims: Sequence[Domain]) -> None:
        for state in victims:
            self.evicted += 1
            logger.info("runner makes room", extra={
                "domain": state.name, "memory_bytes": state.takes.ram_bytes, "gpu_bytes": state.takes.gpu_bytes,
            })  # fmt: skip
            self._tell_to_go(state)
