"""One runner: a child process, as its parent sees it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import logging
import os
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

from facetmesh.kit import errors
from facetmesh.runners import frames, replies
from facetmesh.runners.spawn import spawn
from facetmesh.runners.stderr import relay
from facetmesh.runners.tasks import Reply

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from facetmesh.runners.settings import EngineSetting, RunnerLimits
    from facetmesh.runners.spawn import Child

logger = logging.getLogger(__name__)

OnExit = Callable[[frozenset[str] | None], None]
"""Called once when the child is gone: with the subjects of the calls that may
have killed it, or with None when it had been told to go."""

OnEnd = Callable[["Reply | None"], None]
"""Called once when the child has ended a call: with its reply, or with None where that failed."""

_STOP_S = 2.0
_LAST_WORDS_S = 0.5


@dataclasses.dataclass(frozen=True, slots=True)
class _Pending:
    subject: str
    reply: asyncio.Future[Reply]
    timer: asyncio.TimerHandle
    on_end: OnEnd


class Runner:
    """A child process that runs one program for one isolation domain; made by `start`.

    Calls may overlap; the pool sees to it that no more do than the child has
    threads.

    Args:
        child: The process.
        domain: Whose runner it is: for the log.
        limits: What it may use.
        on_exit: Told when it is gone.
    """

    def __init__(
        self,
        child: Child,
        *,
        domain: str,
        limits: RunnerLimits,
        on_exit: OnExit,
    ) -> None:
        self.pid = child.process.pid
        self.alive = True
        """Whether it takes calls."""
        self._child = child
        self._fields = {"domain": domain, "runner_pid": self.pid}
        self._limits = limits
        self._on_exit = on_exit
        self._ids = itertools.count()
        self._pending: dict[int, _Pending] = {}
        self._drained: asyncio.Future[None] | None = None
        """Who waits for the last call to end."""
        self._asked_to_go = False
        self._overdue: str | None = None
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._life = asyncio.create_task(self._live())

    @classmethod
    async def start(
        cls,
        program: str,
        *,
        domain: str,
        setting: EngineSetting,
        limits: RunnerLimits,
        readable: Sequence[Path] | None,
        on_exit: OnExit,
        on_spawn: Callable[[Runner], None] = lambda _: None,
    ) -> Self:
        """Spawns a child and waits until it has imported its program.

        Args:
            program: The module with the tasks.
            domain: Whose runner it is.
            setting: How its engines are to be opened.
            limits: What it may use.
            readable: Folders whose files it may read; None for all.
            on_exit: As for the class; called too for a child that never got ready.
            on_spawn: Gets the runner before it is ready.

        Raises:
            Unavailable: RUNNER_DIED: it died, or was not ready in time.
            OSError: No process could be made.
        """
        runner = cls(await spawn(program, setting, limits, readable), domain=domain, limits=limits, on_exit=on_exit)
        on_spawn(runner)
        try:
            async with asyncio.timeout(limits.start_timeout_s):
                await runner._ready
        except BaseException as error:
            runner._asked_to_go = isinstance(error, asyncio.CancelledError)
            runner.kill()
            await runner.gone()
            if isinstance(error, TimeoutError):
                raise _died("not ready in time") from error
            raise
        return runner

    @property
    def calls(self) -> int:
        """How many calls are in the child."""
        return len(self._pending)

    def call(
        self,
        task: str,
        arguments: Mapping[str, Any],
        blobs: Sequence[bytes],
        *,
        subject: str,
        timeout_s: float,
        on_end: OnEnd,
    ) -> asyncio.Future[Reply]:
        """Sends a call to the child, and returns the future of its reply.

        After `timeout_s` seconds the child is killed, because nothing else ends
        native code, and every call in it fails. Who does not want to wait cancels
        the future: the child is busy until `on_end` is called.

        Raises:
            Unavailable: RUNNER_DIED: it was gone already.
        """
        if not self.alive:
            raise _died("it was gone already")
        loop = asyncio.get_running_loop()
        reply: asyncio.Future[Reply] = loop.create_future()
        call_id = next(self._ids)
        parts = frames.encode({"id": call_id, "task": task, "arguments": arguments, "subject": subject}, blobs)
        timer = loop.call_later(timeout_s, self._time_out, call_id)
        self._pending[call_id] = _Pending(subject, reply, timer, on_end)
        for part in parts:  # joined, the image would be copied once more
            self._child.calls.write(part)
        return reply

    def pause(self) -> None:
        """Stops the child where it is, until `resume`."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Lets the child go on."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kills the child now; its calls fail as soon as it is gone."""
        self.alive = False
        self._signal(signal.SIGKILL)

    async def close(self, *, drain: bool) -> None:
        """Stops the child, by force where asking does not do, and waits until it is gone.

        Args:
            drain: Wait for the calls in it first.
        """
        self.alive = False
        if drain and self._pending:
            self._drained = asyncio.get_running_loop().create_future()
            await self._drained
        self._asked_to_go = True
        self.resume()  # or it would not hear of it
        self._child.calls.close()
        try:
            await asyncio.wait([self._life], timeout=_STOP_S)
        finally:
            self.kill()
        await self.gone()

    async def gone(self) -> None:
        """Waits until the child is gone."""
        await asyncio.wait([self._life])

    def _signal(self, number: signal.Signals) -> None:
        if self._child.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    async def _live(self) -> None:
        relaying = asyncio.create_task(relay(self._child.stderr, self._fields))
        try:
            self._child.replies.hand(self._greet)
            await self._child.replies.over
        except frames.FrameError as error:
            logger.error("a runner broke the protocol: %s", error, extra=self._fields)  # noqa: TRY400 - no stack to see
        finally:
            self.kill()
            code = await self._child.process.wait()
            # A process that got away from the child may hold its standard error open.
            await asyncio.wait([relaying], timeout=_LAST_WORDS_S)
            relaying.cancel()
            self._child.close()
            self._bury(code)

    def _greet(self, header: Mapping[str, Any], _: list[bytes]) -> None:
        if header != {"ready": True}:
            raise frames.FrameError("no ready frame")
        self._child.replies.hand(self._receive)
        if not self._ready.done():
            self._ready.set_result(None)

    def _receive(self, header: Mapping[str, Any], blobs: list[bytes]) -> None:
        call_id = header.get("id")
        if type(call_id) is not int or call_id not in self._pending:
            raise frames.FrameError("a reply to no call")
        self._end(call_id, replies.outcome(header, blobs))

    def _time_out(self, call_id: int) -> None:
        self._overdue = self._pending[call_id].subject
        self.kill()
        self._end(
            call_id, errors.DeadlineExceeded("It ran for too long and was stopped.", reason="RUNNER_TIMEOUT")
        )

    def _end(self, call_id: int, result: Reply | errors.FacetmeshError) -> None:
        pending = self._pending.pop(call_id)
        pending.timer.cancel()
        if not pending.reply.cancelled():  # or who asked is gone
            if isinstance(result, Reply):
                pending.reply.set_result(result)
            else:
                pending.reply.set_exception(result)
        if self._drained is not None and not self._pending and not self._drained.done():
            self._drained.set_result(None)
        pending.on_end(result if isinstance(result, Reply) else None)

    def _bury(self, code: int) -> None:
        self.alive = False
        culprits = {pending.subject for pending in self._pending.values()}
        if self._overdue is not None:
            culprits = {self._overdue}
        cause = "overdue" if self._overdue is not None else _cause(code)
        if not self._ready.done():
            self._ready.set_exception(_died(cause))
        if not self._asked_to_go:
            logger.error("a runner died: %s", cause, extra={**self._fields, "subjects": sorted(culprits)})
        self._on_exit(None if self._asked_to_go else frozenset(culprits))
        for call_id in list(self._pending):
            self._end(call_id, _died(cause))


def _died(cause: str) -> errors.Unavailable:
    return errors.Unavailable(
        "The process that ran the model died. A repeat is safe.",
        reason="RUNNER_DIED",
        metadata={"cause": cause},
        retry_after_s=0.2,
    )


def _cause(code: int) -> str:
    try:
        return signal.Signals(-code).name if code < 0 else f"exit {code}"
    except ValueError:
        return f"signal {-code}"
