"""The scheduler: which tenant's work gets the compute slots next, and what is refused instead.

A slot is a core. Work is taken in the order of `fairness`, by what it costs in
core-seconds, as measured. Nothing starts without a slot, so that the cores are
never oversubscribed; a short request on an idle machine gets several of them,
because what is best for one is not best for many. A model that must be loaded
first is work like any other, but never takes the last slot.

A short request of a tenant that asks for little does not wait for those of a
tenant that asks for more than its part: their process is paused until it is
done (as fq_codel puts sparse flows first, and gang schedulers suspend jobs).

What cannot be done in time is refused before it costs anything, and who stops
waiting still pays for what runs: native code cannot be stopped.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from facetmesh.detection import priorities
from facetmesh.detection.costs import Costs
from facetmesh.detection.fairness import FairQueue
from facetmesh.detection.running import Pausable, Run, Running
from facetmesh.kit.errors import DeadlineExceeded, FacetmeshError, ResourceExhausted, Unavailable
from facetmesh.runners import tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from facetmesh.runners.tasks import Reply

_LEAST_RETRY_S = 0.05
# What takes longer leaves the other slots to those who come meanwhile, and nobody stands still for it any longer.
_SHORT_S = 0.1
# What ran is counted a moment after it was answered: its caller goes first, with what else is done for the answer.
_COUNTED_AFTER_S = 0.001


class Runners(tasks.Runners, Pausable, Protocol):
    """Where work is done: `runners.pool.RunnerPool`."""

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
    """How long it waited for a slot, in seconds, and stood still for others."""
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
    before: frozenset[str] = frozenset()
    """Tenants that stand still while it runs."""
    # Its traces and its charge belong to whoever asked.
    context: contextvars.Context = field(default_factory=contextvars.copy_context)


class Scheduler:
    """Runs tenants' tasks in their processes, as fast as the machine allows and as fairly.

    Args:
        runners: Where they run.
        limits: What may run and wait.
        weight: A tenant's part of the compute, relative to the others'.
        queued: Is told how long a request has waited when it begins, in seconds, in its caller's context.
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
        queued: Callable[[float], None] = lambda _: None,
        served: Callable[[Served], None] = lambda _: None,
        patience: Callable[[], float] = lambda: math.inf,
        priority: Callable[[], int] = priorities.current,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._runners = runners
        self._limits = limits
        self._weight = weight
        self._queued = queued
        self._served = served
        self._patience = patience
        self._priority = priority
        self._clock = clock
        self._waiting: FairQueue[_Job] = FairQueue()
        self._running = Running(runners, limits.slots, clock)
        self._alarm: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._costs = Costs()

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
        cost = self._costs.of(domain, task, subject)
        weight = self._weight(domain)
        priority = self._priority()
        job = _Job(
            domain, task, arguments, blobs, subject, now + timeout_s, now, asyncio.get_running_loop().create_future()
        )
        self._admit(job, cost, weight, timeout_s, priority)
        self._waiting.put(domain, job, cost=cost, weight=weight, priority=priority)
        self._dispatch()
        if job.reply.done():
            return await job.reply
        late = asyncio.get_running_loop().call_later(timeout_s, self._expire, job)
        try:
            return await job.reply
        finally:
            late.cancel()
            if self._waiting.remove(domain, job):
                self._dispatch()

    def queues(self, domain: str) -> bool:
        """Whether requests of a domain wait."""
        return self._waiting.waiting(domain) > 0

    def pause(self, domain: str) -> None:
        """Has those stand still, until `resume`, that are ahead of a domain whose only call has just come.

        Its work is spread over processes that get no core at once while others' models have all of them.
        """
        if domain not in self._running.domains() and not self.queues(domain):
            self._running.hold(self._ahead_of(domain), self)

    def resume(self) -> None:
        """Has them go on."""
        self._running.release(self)
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

    def _admit(self, asked: _Job, cost: float, weight: float, timeout_s: float, priority: int) -> None:
        if timeout_s <= 0:
            raise _passed()
        if not self._waiting and self._running.free > 0:
            return
        domain = asked.domain
        wait_s = self._wait_s(domain, weight, priority)
        full = self._waiting.waiting(domain) >= self._limits.queue
        last = self._waiting.last(domain) if full else None
        if last is not None and last[0] <= priority:
            raise _full(wait_s)
        if wait_s + cost > timeout_s:
            if cost > timeout_s:
                self._costs.doubt(domain, asked.task, asked.subject)
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
        return (self._running.left_s() + self._waiting.ahead(domain, weight, priority)) / self._limits.slots

    def _dispatch(self) -> None:
        while (taken := self._waiting.take(self._may_start)) is not None:
            domain, job, expected = taken
            if job.reply.done():  # it gave up a moment ago
                self._waiting.settle(domain, expected=expected, actual=0.0)
                continue
            cold = not self._runners.warm(domain, job.subject)
            free = self._running.free + self._running.held(job.before)
            alone = free == self._limits.slots and not any(
                self._ready(other) for other in self._waiting.heads() if other.domain not in job.before
            )
            wide = alone and not cold and expected <= _SHORT_S
            slots = min(free, self._limits.widest) if wide else 1
            run = Run(domain, self._clock(), expected, slots, cold)
            self._running.begin(run, job.before)
            loop = asyncio.get_running_loop()
            if job.before:
                loop.call_later(_SHORT_S, self._running.release, run)
            task = loop.create_task(self._run(job, run), context=job.context)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _may_start(self, job: _Job) -> bool:
        """Whether a job may have a slot now: loads leave one to those whose models are there.

        A process that keeps dying waits for its next start without a slot.
        """
        if not self._ready(job):
            if (rests_s := self._runners.rests_s(job.domain)) > 0:
                self._dispatch_in(rests_s)
            return False
        job.before = self._before(job)
        if self._running.free + self._running.held(job.before) > 0:
            return True
        self._dispatch_in(_SHORT_S)  # who runs may have had more than its part by then
        return False

    def _ready(self, job: _Job) -> bool:
        """Whether a job lacks nothing but a slot."""
        if self._runners.rests_s(job.domain) > 0 or self._running.stands(job.domain):
            return False
        full = self._running.loads >= max(1, self._limits.slots - 1)
        return not full or self._runners.warm(job.domain, job.subject)

    def _before(self, job: _Job) -> frozenset[str]:
        """Tenants that stand still so that a job gets the cores: those that had more than their part, and want more."""
        short = self._costs.of(job.domain, job.task, job.subject) <= _SHORT_S
        if not (short and self._runners.warm(job.domain, job.subject) and self._waiting.sparse(job.domain)):
            return frozenset()
        return self._ahead_of(job.domain)

    def _ahead_of(self, domain: str) -> frozenset[str]:
        """Tenants that had more than their part, compared with another, and want more; none where slots are free."""
        if self._running.free >= min(self._limits.slots, self._limits.widest):
            return frozenset()
        # The queue hears at its end what a request took. By then a load had the cores for a second, and a model that
        # was quick for one image may have them for half a minute for another.
        leads = {
            other: self._waiting.lead(other, domain) + self._running.unexpected_s(other, _SHORT_S)
            for other in self._running.domains()
            if other != domain
        }
        return frozenset(
            other for other, lead in leads.items() if lead > (0.0 if self._waiting.waiting(other) else _SHORT_S)
        )

    def _dispatch_in(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        if self._alarm is not None and now < self._alarm.when() <= now + seconds:
            return  # it rings before
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = loop.call_later(seconds, self._dispatch)

    async def _run(self, job: _Job, run: Run) -> None:
        reply: Reply | None = None
        problem: FacetmeshError | None = None
        self._queued(self._clock() - job.arrived)
        try:
            reply = await self._runners.call(
                domain=job.domain,
                task=job.task,
                arguments={**job.arguments, "cores": run.slots},
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
            now, took = self._clock(), self._running.end(run)
            self._waiting.settle(job.domain, expected=run.expected, actual=took * run.slots)
            # The process knows better: what it has may not be all that this one needs.
            cold = run.cold or (reply is not None and "load" in reply.timings_ms)
            if reply is not None and not cold:
                self._costs.learn(job.domain, job.task, job.subject, took * run.slots)
            self._running.release(run)
            self._dispatch()
        await asyncio.sleep(_COUNTED_AFTER_S)
        self._served(
            Served(
                job.domain, job.task, job.subject, queue_s=now - job.arrived - took, run_s=took,
                compute_s=took * run.slots, cold=cold, reply=reply, error=problem,
            )
        )

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
