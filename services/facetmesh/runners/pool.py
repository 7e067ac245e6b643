"""A pool of runners: one child process for each isolation domain."""

from __future__ import annotations

import asyncio
import functools
import logging
import statistics
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Self

from facetmesh.kit import telemetry
from facetmesh.kit.errors import DeadlineExceeded, ResourceExhausted, Unavailable
from facetmesh.runners.domain import Domain
from facetmesh.runners.memory import Footprint, resident_bytes
from facetmesh.runners.quarantine import Quarantine
from facetmesh.runners.residency import Residency
from facetmesh.runners.runner import Runner
from facetmesh.runners.settings import EngineSetting, PoolLimits

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence
    from pathlib import Path

    from facetmesh.runners.tasks import Reply

logger = logging.getLogger(__name__)

_FIRST_BACKOFF_S = 0.2
_FIRST_GUESS = Footprint(192 << 20)
"""A runner with one small model, before any has been measured."""
_LATEST = 15
_MEASURE_EVERY_S = 5.0


class RunnerPool:
    """Runs a program's tasks in child processes, one for each isolation domain.

    A child is spawned when its domain first calls, kept warm, and replaced when
    it dies. To be closed, with `close` or as an async context manager.

    Args:
        program: The module with the tasks, imported in the children only.
        setting: How their engines are opened; see `probe`.
        limits: What they may use.
        readable: Folders whose files they may read by name, beside the libraries
            they run on, the same for all domains or as it says for each; None
            for every file.
        pinned: Whether a domain's runner is kept, idle or not, whoever else wants
            its place.
        gpu_bytes: What a process takes of the cards' memory, by its id: `gpu`.
    """

    def __init__(
        self,
        program: str,
        *,
        setting: EngineSetting | None = None,
        limits: PoolLimits | None = None,
        readable: Sequence[Path] | Callable[[str], Sequence[Path]] | None = None,
        pinned: Callable[[str], bool] = lambda _: False,
        gpu_bytes: Callable[[int], int] = lambda _: 0,
    ) -> None:
        self._readable = readable
        self._pinned = pinned
        self._gpu_bytes = gpu_bytes
        self._program = program
        self._setting = setting or EngineSetting()
        self._limits = limits or PoolLimits()
        self._quarantine = Quarantine(
            deaths=self._limits.deaths,
            window_s=self._limits.deaths_window_s,
            duration_s=self._limits.quarantine_s,
        )
        self._domains: dict[str, Domain] = {}
        self._residency = Residency(
            self._domains, self._limits, pinned=pinned, evict=functools.partial(self._retire, drain=True)
        )
        # What runners took with one model, the latest of them: the next is taken for one like these.
        self._first = deque([_FIRST_GUESS], _LATEST)
        self._background: set[asyncio.Task[None]] = set()
        self._closed = False

    async def __aenter__(self) -> Self:
        """Opens nothing: children come with the calls."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Closes."""
        await self.close()

    async def call(
        self,
        *,
        domain: str,
        task: str,
        arguments: Mapping[str, Any] | None = None,
        blobs: Sequence[bytes] = (),
        subject: str = "",
        timeout_s: float = 30.0,
    ) -> Reply:
        """Runs a task in the domain's child.

        Who stops waiting (is cancelled) gives up the reply; the child finishes
        all the same, or is killed at its timeout.

        Args:
            domain: The isolation domain, such as a tenant's id.
            task: The task's name.
            arguments: JSON values for it.
            blobs: Binary inputs for it.
            subject: What is run, such as a model's name: deaths are held against it.
            timeout_s: How long it may wait, and then how long it may run, in
                seconds.

        Raises:
            ResourceExhausted: QUEUE_FULL: too many calls of the domain wait.
            FailedPrecondition: MODEL_QUARANTINED: the subject died too often.
            Unavailable: RUNNER_DIED: the child died under the call; a repeat is safe.
            DeadlineExceeded: RUNNER_TIMEOUT: it waited or ran too long.
            FacetmeshError: What the task raised.
        """
        if self._closed:
            raise _closed()
        self._quarantine.check((domain, subject))
        state = self._domains.get(domain)
        if state is None:
            usual = Footprint(
                round(statistics.median(one.ram_bytes for one in self._first)),
                round(statistics.median(one.gpu_bytes for one in self._first)),
            )
            state = self._domains[domain] = Domain(domain, self._limits.runner.concurrency, usual)
        if state.waiting >= self._limits.queue:
            raise ResourceExhausted("Too many calls are waiting.", reason="QUEUE_FULL", retry_after_s=1.0)
        at_hand = state.runner is not None and not state.slots.locked()
        with telemetry.span("runner wait"):
            runner = await (self._enter(state) if at_hand else self._wait(state, timeout_s))
        try:
            reply = runner.call(
                task, arguments or {}, blobs, subject=subject, timeout_s=timeout_s,
                on_end=functools.partial(self._ended, state, subject),
            )  # fmt: skip
        except BaseException:
            self._leave(state)
            raise
        with telemetry.span(f"runner {task}"):
            return await reply

    def quarantined(self, domain: str, subject: str) -> bool:
        """Whether a domain's subject is not run for a while, because it kept ending its process."""
        return self._quarantine.holds((domain, subject))

    def warm(self, domain: str, subject: str) -> bool:
        """Whether the domain's runner is up and has answered for the subject."""
        state = self._domains.get(domain)
        return state is not None and state.runner is not None and subject in state.answered

    def rests_s(self, domain: str) -> float:
        """How long the domain's runner, which died again and again, is not started anew, in seconds."""
        state = self._domains.get(domain)
        return 0.0 if state is None else max(0.0, state.not_before - time.monotonic())

    def pause(self, domain: str) -> None:
        """Stops the domain's process where it is, and any that is spawned for it, until `resume`.

        Its calls' time goes on. For moments: others, who have waited longer for the cores, get them.
        """
        if (state := self._domains.get(domain)) is not None:
            state.paused = True
            if state.child is not None:
                state.child.pause()

    def resume(self, domain: str) -> None:
        """Lets the domain's process go on."""
        if (state := self._domains.get(domain)) is not None and state.paused:
            state.paused = False
            if state.child is not None:
                state.child.resume()

    def pids(self) -> dict[str, int]:
        """The process id of each domain that has a runner up."""
        return {name: state.runner.pid for name, state in self._domains.items() if state.runner is not None}

    def in_quarantine(self) -> dict[str, int]:
        """How many models of each domain are not run for a while, because they ended their processes."""
        return self._quarantine.held()

    def memory(self) -> dict[str, int]:
        """What each domain's runner takes, in bytes, as it was last measured."""
        return {name: state.takes.ram_bytes for name, state in self._domains.items() if state.runner is not None}

    def gpu_memory(self) -> dict[str, int]:
        """What each domain's runner takes of the cards' memory, in bytes, as it was last measured."""
        return {name: state.takes.gpu_bytes for name, state in self._domains.items() if state.runner is not None}

    @property
    def evicted(self) -> int:
        """How many runners had to make room for others so far."""
        return self._residency.evicted

    async def close(self) -> None:
        """Stops every child, and returns when none is left; what runs fails."""
        self._closed = True
        starts = [state.start for state in self._domains.values() if state.start is not None]
        for start in starts:
            start.cancel()
        await asyncio.gather(*starts, return_exceptions=True)
        for state in self._domains.values():
            for timer in (state.idle_timer, state.measure_timer):
                if timer is not None:
                    timer.cancel()
            self._retire(state, drain=False)
        await asyncio.gather(*self._background)

    async def _wait(self, state: Domain, timeout_s: float) -> Runner:
        try:
            async with asyncio.timeout(timeout_s):
                return await self._enter(state)
        except TimeoutError as error:
            raise DeadlineExceeded("It had to wait too long.", reason="RUNNER_TIMEOUT") from error

    async def _enter(self, state: Domain) -> Runner:
        """Waits for a slot and a live runner; `_leave` gives the slot back."""
        state.waiting += 1
        try:
            await state.slots.acquire()
        finally:
            state.waiting -= 1
        state.running += 1
        try:
            return await self._runner(state)
        except BaseException:
            self._leave(state)
            raise

    async def _runner(self, state: Domain) -> Runner:
        while not self._closed:
            start = state.start
            if start is None or (start.done() and state.runner is None):
                start = state.start = asyncio.create_task(self._start(state))
                start.add_done_callback(lambda done: done.cancelled() or done.exception())
            # A caller that goes away does not stop the start: others, or its own repeat, want the runner.
            if not start.done():
                await asyncio.wait([start])
            # It may have been told to make room before this caller's turn came.
            if not start.cancelled() and (runner := start.result()).alive:
                return runner
        raise _closed()

    def _ended(self, state: Domain, subject: str, reply: Reply | None) -> None:
        state.served += 1
        self._leave(state, subject, reply)

    def _leave(self, state: Domain, subject: str = "", reply: Reply | None = None) -> None:
        state.slots.release()
        state.running -= 1
        state.last_used = time.monotonic()
        if reply is not None:
            state.deaths = 0
            self._answered(state, subject, reply.gone)
        self._residency.changed()
        self._set_idle_timer(state, self._limits.idle_s)
        self._measure_soon(state)

    def _answered(self, state: Domain, subject: str, gone: Sequence[str]) -> None:
        if state.runner is None:
            return
        is_new = subject not in state.answered
        state.answered.add(subject)
        state.answered.difference_update(gone)
        if not is_new:
            return
        # Something was loaded for it: that is when a runner grows.
        state.takes = self._footprint(state.runner.pid)
        if len(state.answered) == 1:
            self._first.append(state.takes)
        self._residency.grown()

    def _measure_soon(self, state: Domain) -> None:
        """Runners grow between loads too: an engine makes its better plan while the first one serves."""
        if state.measure_timer is None and not self._closed:
            loop = asyncio.get_running_loop()
            state.measure_timer = loop.call_later(_MEASURE_EVERY_S, self._begin_measuring, state)

    def _begin_measuring(self, state: Domain) -> None:
        state.measure_timer = None
        if state.runner is not None:
            self._in_background(self._measure(state, state.runner))

    async def _measure(self, state: Domain, runner: Runner) -> None:
        # On a thread: of a large process it takes some milliseconds.
        found = await asyncio.to_thread(self._footprint, runner.pid)
        if found and state.runner is runner:
            state.takes = found
            self._residency.grown()

    def _footprint(self, pid: int) -> Footprint:
        return Footprint(resident_bytes(pid), self._gpu_bytes(pid))

    def _in_background(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _start(self, state: Domain) -> Runner:
        await asyncio.sleep(self.rests_s(state.name))
        await self._residency.enter(state)
        began = time.monotonic()
        try:
            runner = await Runner.start(
                self._program,
                domain=state.name,
                setting=self._setting,
                limits=self._limits.runner,
                readable=self._readable(state.name) if callable(self._readable) else self._readable,
                on_exit=functools.partial(self._exited, state),
                on_spawn=functools.partial(self._spawned, state),
            )
        except BaseException as error:
            state.resident = False
            if not isinstance(error, OSError):
                raise
            self._residency.left()
            logger.exception("no runner could be spawned", extra={"domain": state.name})
            raise Unavailable("No process could be started.", reason="RUNNER_DIED", retry_after_s=1.0) from error
        logger.info(
            "runner started",
            extra={"domain": state.name, "runner_pid": runner.pid, "ms": round((time.monotonic() - began) * 1000)},
        )
        return runner

    def _spawned(self, state: Domain, runner: Runner) -> None:
        state.child = runner
        if state.paused:
            runner.pause()

    def _exited(self, state: Domain, culprits: frozenset[str] | None) -> None:
        self._residency.left()
        if culprits is None:
            return
        state.resident = False
        state.deaths += 1
        if state.deaths > 1:
            backoff_s = min(_FIRST_BACKOFF_S * 2 ** (state.deaths - 2), self._limits.max_backoff_s)
            state.not_before = time.monotonic() + backoff_s
        for subject in culprits:
            if self._quarantine.record((state.name, subject)):
                logger.error("model quarantined", extra={"domain": state.name, "subject": subject})

    def _retire(self, state: Domain, *, drain: bool) -> None:
        runner, state.start = state.runner, None
        if runner is None:
            return
        runner.alive = state.resident = False
        self._in_background(self._residency.leave(runner, state.takes, drain=drain))

    def _set_idle_timer(self, state: Domain, delay_s: float) -> None:
        if state.idle_timer is None and state.idle and not self._closed:
            state.idle_timer = asyncio.get_running_loop().call_later(delay_s, self._unload, state)

    def _unload(self, state: Domain) -> None:
        state.idle_timer = None
        left_s = state.last_used + self._limits.idle_s - time.monotonic()
        if left_s > 0:
            # It was used meanwhile: that way a runner has one timer, and not each of its calls.
            self._set_idle_timer(state, left_s)
        elif state.start is not None and not state.start.done():
            # Whoever wanted it went away; it is stopped once it is there.
            self._set_idle_timer(state, self._limits.idle_s)
        elif state.idle and not self._pinned(state.name):
            self._retire(state, drain=True)
            del self._domains[state.name]


def _closed() -> Unavailable:
    return Unavailable("The service is shutting down.", reason="SHUTTING_DOWN", retry_after_s=1.0)
