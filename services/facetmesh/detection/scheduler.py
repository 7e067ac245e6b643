"""The scheduler: which tenant's work gets the compute slots next, and what is refused instead.

A slot is a core. Work is taken in the order of `fairness`, by what it costs in
core-seconds, as measured. Nothing starts without a slot, so that the cores are
never oversubscribed; a short request on an idle machine gets several of them,
because what is best for one is not best for many. A model that must be loaded
first is work like any other, but never takes the last slot.

What cannot be done in time is refused before it costs anything, and who stops
waiting still pays for what runs: native code cannot be stopped.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from facetmesh.detection import priorities
from facetmesh.detection.fairness import FairQueue
from facetmesh.kit.errors import DeadlineExceeded, FacetmeshError, ResourceExhausted, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from facetmesh.runners.tasks import Reply

_REMEMBERED = 4096
# Of a new measurement, in the moving average of what a model's requests cost.
_SHARE_OF_NEW = 0.2
_FIRST_GUESS_S = 0.02
_LEAST_RETRY_S = 0.05
# What takes longer leaves the other slots to those who come meanwhile.
_SHORT_S = 0.1


class Runners(Protocol):
    """Where work is done: `runners.pool.RunnerPool`."""

    async def call(
        self,
        *,
        domain: str,
        task: str,
        arguments: Mapping[str, Any],
        blobs: Sequence[bytes] = (),
        subject: str,
        timeout_s: float,
    ) -> Reply:
        """Runs a task in the domain's process."""
        ...

    def warm(self, domain: str, subject: str) -> bool:
        """Whether the domain's process is up and has answered for the subject."""
        ...

    def rests_s(self, domain: str) -> float:
        """How long the domain's process, which died again and again, is not started anew, in seconds."""
        ...


@dataclass(frozen=True, slots=True)
class SchedulerLimits:
    """What may run and wait."""

    slots: int
    """Cores that work may keep busy."""
    widest: int = 8
    """Slots that one request may have when nothing else is to be done: engines gain little from more."""
    queue: int = 64
    """Requests of one tenant that wait; of one more the least urgent is refused."""
    run_s: float = 30.0
    """How long one may run, in seconds, whatever its caller's patience."""


@dataclass(frozen=True, slots=True)
class Served:
    """What became of a request that ran."""

    tenant_id: str
    task: str
    subject: str
    """What ran, such as a model."""
    queue_s: float
    """How long it waited for a slot, in seconds."""
    run_s: float
    """How long it ran, in seconds."""
    compute_s: float
    """What it cost: slots times seconds."""
    cold: bool
    """Whether its model may have had to be loaded first."""
    reply: Reply | None
    """The answer; None if it failed."""
    error: FacetmeshError | None
    """What it failed with."""


@dataclass(slots=True, eq=False)
class _Job:
    domain: str
    task: str
    arguments: Mapping[str, Any]
    blobs: Sequence[bytes]
    subject: str
    deadline: float
    arrived: float
    reply: asyncio.Future[Reply]
    # Its traces and its charge belong to whoever asked.
    context: contextvars.Context = field(default_factory=contextvars.copy_context)


class Scheduler:
    """Runs tenants' tasks in their processes, as fast as the machine allows and as fairly.

    Args:
        runners: Where they run.
        limits: What may run and wait.
        weight: A tenant's part of the compute, relative to the others'.
        served: Is told of each request that ran, in its caller's context.
        patience: How long the caller of the current request still waits, in seconds.
        priority: How urgent the current request is among its tenant's own; lower goes first.
        clock: Seconds that never go back.
    """

    def __init__(
        self,
        runners: Runners,
        limits: SchedulerLimits,
        *,
        weight: Callable[[str], float] = lambda _: 1.0,
        served: Callable[[Served], None] = lambda _: None,
        patience: Callable[[], float] = lambda: math.inf,
        priority: Callable[[], int] = priorities.current,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._runners = runners
        self._limits = limits
        self._weight = weight
        self._served = served
        self._patience = patience
        self._priority = priority
        self._clock = clock
        self._waiting: FairQueue[_Job] = FairQueue()
        self._free = limits.slots
        self._loads = 0
        self._alarm: asyncio.TimerHandle | None = None
        self._running: dict[asyncio.Task[None], tuple[float, float, int]] = {}
        """Of each: when it began, what it is expected to cost, and its slots."""
        self._costs: OrderedDict[tuple[str, str], float] = OrderedDict()

    async def call(
        self,
        *,
        domain: str,
        task: str,
        arguments: Mapping[str, Any],
        blobs: Sequence[bytes] = (),
        subject: str,
        timeout_s: float,
    ) -> Reply:
        """Runs a task in the tenant's process when its turn has come.

        Args:
            domain: The tenant's id.
            task: The task's name.
            arguments: JSON values for it; `cores` is added, how many it may use.
            blobs: Binary inputs for it.
            subject: What is run, such as a model.
            timeout_s: Until when the answer is of use, in seconds from now, at the
                most: its caller's patience may end before.

        Raises:
            ResourceExhausted: QUEUE_FULL: too many of the tenant's wait, and this is,
                or became, the least urgent; DEADLINE_UNREACHABLE: its turn would come too late.
            DeadlineExceeded: DEADLINE_PASSED: it was over before anything ran.
            FacetmeshError: What the runner refuses or fails with.
        """
        now = self._clock()
        timeout_s = min(timeout_s, self._patience())
        key = (domain, task + subject)
        cost = self._costs.get(key, _FIRST_GUESS_S)
        weight = self._weight(domain)
        priority = self._priority()
        self._admit(domain, cost, weight, timeout_s, priority)
        job = _Job(
            domain, task, arguments, blobs, subject, now + timeout_s, now, asyncio.get_running_loop().create_future()
        )
        self._waiting.put(domain, job, cost=cost, weight=weight, priority=priority)
        self._dispatch()
        if job.reply.done():
            return await job.reply
        late = asyncio.get_running_loop().call_later(timeout_s, self._expire, job)
        try:
            return await asyncio.shield(job.reply)
        finally:
            late.cancel()
            if self._waiting.remove(domain, job):
                self._dispatch()

    def waiting(self) -> int:
        """How many requests wait."""
        return len(self._waiting)

    def running(self) -> int:
        """How many requests run."""
        return len(self._running)

    def close(self) -> None:
        """Refuses what waits. What runs ends with its runners."""
        while (taken := self._waiting.take()) is not None:
            _, job, _ = taken
            _fail(job, Unavailable("The service is shutting down.", reason="SHUTTING_DOWN", retry_after_s=1.0))

    def _admit(self, domain: str, cost: float, weight: float, timeout_s: float, priority: int) -> None:
        if timeout_s <= 0:
            raise _passed()
        if not self._waiting and self._free:
            return
        wait_s = self._wait_s(domain, weight, priority)
        full = self._waiting.waiting(domain) >= self._limits.queue
        last = self._waiting.last(domain) if full else None
        if last is not None and last[0] <= priority:
            raise _full(wait_s)
        if wait_s + cost > timeout_s:
            raise ResourceExhausted(
                f"Your call's turn would come in about {wait_s:.2f} s, after its deadline.",
                reason="DEADLINE_UNREACHABLE",
                retry_after_s=max(wait_s, _LEAST_RETRY_S),
            )

        if last is not None:
            _, job = last
            self._waiting.remove(domain, job)
            _fail(job, _full(self._wait_s(domain, weight, last[0])))

    def _wait_s(self, domain: str, weight: float, priority: int) -> float:
        """When a request that came now would start, in seconds from now, as far as is known."""
        now = self._clock()
        left = sum(
            max(0.0, cost - (now - began) * slots) for began, cost, slots in self._running.values()
        )
        return (left + self._waiting.ahead(domain, weight, priority)) / self._limits.slots

    def _dispatch(self) -> None:
        while self._free and (taken := self._waiting.take(self._may_start)) is not None:
            domain, job, expected = taken
            if job.reply.done():  # it gave up a moment ago
                self._waiting.settle(domain, expected=expected, actual=0.0)
                continue
            cold = not self._runners.warm(domain, job.subject)
            alone = not self._waiting and self._free == self._limits.slots
            wide = alone and not cold and expected <= _SHORT_S
            slots = min(self._free, self._limits.widest) if wide else 1
            self._free -= slots
            self._loads += cold
            run = self._run(job, expected=expected, slots=slots, cold=cold)
            task = asyncio.get_running_loop().create_task(run, context=job.context)
            self._running[task] = (self._clock(), expected, slots)
            task.add_done_callback(self._running.pop)

    def _may_start(self, job: _Job) -> bool:
        """Whether a job may have a slot now: loads leave one to those whose models are there.

        A process that keeps dying waits for its next start without a slot.
        """
        rests_s = self._runners.rests_s(job.domain)
        if rests_s > 0:
            self._dispatch_in(rests_s)
            return False
        return self._loads < max(1, self._limits.slots - 1) or self._runners.warm(job.domain, job.subject)

    def _dispatch_in(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        if self._alarm is not None and now < self._alarm.when() <= now + seconds:
            return  # it rings before
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = loop.call_later(seconds, self._dispatch)

    async def _run(self, job: _Job, *, expected: float, slots: int, cold: bool) -> None:
        began = self._clock()
        reply: Reply | None = None
        problem: FacetmeshError | None = None
        try:
            reply = await self._runners.call(
                domain=job.domain,
                task=job.task,
                arguments={**job.arguments, "cores": slots},
                blobs=job.blobs,
                subject=job.subject,
                timeout_s=self._limits.run_s,
            )
            if not job.reply.done():
                job.reply.set_result(reply)
        except FacetmeshError as error:
            problem = error
            _fail(job, error)
        except BaseException as error:
            _fail(job, error)
            raise
        finally:
            took = self._clock() - began
            self._free += slots
            self._loads -= cold
            self._waiting.settle(job.domain, expected=expected, actual=took * slots)
            if reply is not None and not cold:
                self._learn((job.domain, job.task + job.subject), took * slots)
            self._dispatch()
        self._served(
            Served(
                job.domain, job.task, job.subject, queue_s=began - job.arrived, run_s=took, compute_s=took * slots,
                cold=cold, reply=reply, error=problem,
            )
        )

    def _learn(self, key: tuple[str, str], cost: float) -> None:
        known = self._costs.pop(key, cost)
        self._costs[key] = known + _SHARE_OF_NEW * (cost - known)
        if len(self._costs) > _REMEMBERED:
            self._costs.popitem(last=False)

    def _expire(self, job: _Job) -> None:
        """Its time is over. What runs goes on to its end; nobody waits for that any more."""
        if self._waiting.remove(job.domain, job):
            _fail(job, _passed())
            self._dispatch()
        else:
            _fail(job, DeadlineExceeded("It was not done in time.", reason="DEADLINE_PASSED"))


def _fail(job: _Job, error: BaseException) -> None:
    if not job.reply.done():
        job.reply.set_exception(error)
        # Whoever asked may be gone; then nobody need hear of it.
        job.reply.exception()


def _full(wait_s: float) -> ResourceExhausted:
    return ResourceExhausted(
        "Too many of your calls are waiting.", reason="QUEUE_FULL", retry_after_s=max(wait_s, _LEAST_RETRY_S)
    )


def _passed() -> DeadlineExceeded:
    return DeadlineExceeded("Its deadline passed before its turn came.", reason="DEADLINE_PASSED")
