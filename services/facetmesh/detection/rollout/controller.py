"""Drives rollouts: looks, decides, writes down, and only then acts.

A decision is first in the record, guarded by its etag, so that of two controllers
one has made it. Then it is audited, then carried out. Both are repeated until they
succeed: the executor says how things shall be, not what to change, and the audit
event has a number. A controller may die between any two of these, and the next one
goes on. A rollback waits for nobody; what gives the new version more calls waits
for the audit log.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from facetmesh.detection.rollout.decisions import carried_out, obey, watch
from facetmesh.detection.rollout.record import State
from facetmesh.detection.rollout.samples import Samples
from facetmesh.kit.errors import Aborted, FacetmeshError

if TYPE_CHECKING:
    from collections.abc import Callable

    from facetmesh.detection.rollout.record import Decision, Rollout

TICK_S = 1.0
"""How often rollouts are looked at."""
LEASE_S = 15.0
"""How long a controller that is not heard of keeps a rollout to itself."""
_log = logging.getLogger(__name__)


class Records(Protocol):
    """Where the records are."""

    async def active(self) -> list[str]:
        """The names of the rollouts in which there is something to do."""
        ...

    async def lease(self, name: str, holder: str, seconds: float) -> Rollout | None:
        """The record, which nobody else gets for so long; None while another has it."""

    async def report(self, rollout: Rollout, holder: str) -> Rollout:
        """Stores the record over what has its etag.

        Raises:
            Aborted: Somebody else changed it meanwhile, or holds the lease.
        """
        ...


class Executor(Protocol):
    """What splits the calls. Each method may be repeated."""

    async def apply(self, rollout: Rollout) -> None:
        """Has the calls split as the rollout's current step says."""

    async def promote(self, rollout: Rollout) -> None:
        """Makes the candidate the stable version, and ends the split."""

    async def withdraw(self, rollout: Rollout) -> None:
        """Gives the stable version all calls, and ends the split."""


class Metrics(Protocol):
    """What knows of calls."""

    async def samples(self, rollout: Rollout) -> Samples:
        """Both versions' calls since the rollout's step began."""
        ...


class Audit(Protocol):
    """What keeps decisions."""

    async def decided(self, rollout: Rollout, decision: Decision) -> None:
        """Returns once the decision is accepted; one that was already is accepted again, and kept once."""


class Controller:
    """One of several, of which each rollout has one at a time.

    Args:
        records: Where the records are.
        executor: What splits the calls.
        metrics: What knows of calls.
        audit: What keeps decisions.
        holder: The name of this controller in leases; no other has it.
        wall: Seconds since the epoch.
        clock: Seconds that never go back.
    """

    def __init__(
        self, records: Records, executor: Executor, metrics: Metrics, audit: Audit, *, holder: str,
        wall: Callable[[], float] = time.time, clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._records = records
        self._executor = executor
        self._metrics = metrics
        self._audit = audit
        self._holder = holder
        self._wall = wall
        self._clock = clock

    async def run(self, every_s: float) -> None:
        """Drives rollouts until it is cancelled."""
        while True:
            try:
                await self.tick()
            except FacetmeshError as error:
                _log.warning("rollouts cannot be read", extra={"reason": error.reason})
            await asyncio.sleep(every_s)

    async def tick(self) -> None:
        """Drives each rollout by one decision at most. What fails in one is tried again at the next tick."""
        for name in await self._records.active():
            try:
                await self._drive(name)
            except Aborted:
                _log.info("a rollout was changed meanwhile", extra={"rollout": name})
            except FacetmeshError as error:
                _log.warning("a rollout is held up", extra={"rollout": name, "reason": error.reason})

    async def _drive(self, name: str) -> None:
        until = self._clock() + LEASE_S
        rollout = await self._records.lease(name, self._holder, LEASE_S)
        if rollout is None:
            return
        rollout = await self._announce(rollout)
        after = obey(rollout, self._wall())
        if after is rollout:
            after = watch(rollout, await self._samples(rollout), self._wall())
        if after != rollout:
            rollout = await self._announce(await self._records.report(after, self._holder))
        if self._clock() < until:  # else another may have it by now
            await self._act(rollout)

    async def _samples(self, rollout: Rollout) -> Samples:
        """What is known of the calls: nothing, where it cannot be asked."""
        try:
            return await self._metrics.samples(rollout)
        except FacetmeshError as error:
            _log.warning("metrics are missing", extra={"rollout": rollout.name, "reason": error.reason})
            return Samples()

    async def _announce(self, rollout: Rollout) -> Rollout:
        """Has the audit log accept what it can, the oldest first; returns the record without it."""
        rest = list(rollout.outbox)
        try:
            while rest:
                await self._audit.decided(rollout, rest[0])
                rest.pop(0)
        except FacetmeshError as error:
            _log.warning("a decision is not audited yet", extra={"rollout": rollout.name, "reason": error.reason})
        if len(rest) == len(rollout.outbox):
            return rollout
        return await self._records.report(replace(rollout, outbox=tuple(rest)), self._holder)

    async def _act(self, rollout: Rollout) -> None:
        """Has things be as the record says."""
        if rollout.state is State.ROLLING_BACK:
            await self._executor.withdraw(rollout)
        elif rollout.outbox:
            return
        elif rollout.state is State.PROMOTING:
            await self._executor.promote(rollout)
        elif rollout.state in {State.RUNNING, State.PAUSED}:
            await self._executor.apply(rollout)
            return
        else:
            return
        done = await self._records.report(carried_out(rollout, self._wall()), self._holder)
        await self._announce(done)
