"""Starts the processes of a mesh, replaces those that die, and stops them all.

    async with Supervisor(home, port_base, report) as mesh:      # here all of them serve
        await stop.wait()
                                                             # here none is left

Should the supervisor itself be killed, the end of its lifeline (a pipe whose
write end only it holds) tells every process to end.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import psutil

from facetmesh.cli.mesh.layout import Layout
from facetmesh.cli.mesh.ports import Ports, choose
from facetmesh.cli.mesh.process import (
    STOP_ORDER,
    Process,
    Program,
    Tier,
    descendants,
    describe_exit,
    end,
    is_alive,
    rotate,
)
from facetmesh.cli.mesh.programs import Place, programs
from facetmesh.cli.mesh.secrets import ensure
from facetmesh.kit import errors, files

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType

    from facetmesh.cli.mesh.home import Home

START_S = 90.0
"""How long the mesh may take until all of it serves."""
GRACE_S = 15.0
"""How long a process may take to end by itself: more than the services' drain_s."""
_SIDECARS_GRACE_S = 3.0
"""The same for sidecars. Their services have ended, so what they still try to deliver comes at the next start."""
FIRST_BACKOFF_S = 0.2
LONGEST_BACKOFF_S = 3.0
"""With what a process takes to start, all serve again within ten seconds, also where one is killed again and again."""
STEADY_S = 30.0
"""Who has run this long starts again without a wait."""


@dataclass(frozen=True, slots=True)
class Change:
    """Something that happened to a process."""

    process: str
    state: str
    """starting, serving, died or stopped."""
    detail: str = ""


class Supervisor:
    """The mesh on this machine, while the context lasts.

    Args:
        home: Its state folder.
        port_base: Its processes listen from the port after this one on; 0 finds free ones.
        report: Is told of each change.
        layout: What it is made of.
    """

    def __init__(
        self, home: Home, port_base: int, report: Callable[[Change], None], layout: Layout | None = None,
    ) -> None:
        self._home = home
        self._layout = layout or Layout()
        self._ports = Ports(port_base)
        self._report = report
        self._running: dict[str, Process] = {}
        self._keepers: list[asyncio.Task[None]] = []
        self._resources = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Returns when all serve.

        Raises:
            FailedPrecondition: The folder cannot be written, ports are taken, another mesh runs, a secret or a program
                is missing, or a process did not start: the message says which and why.
            ResourceExhausted: The disk is full.
        """
        async with contextlib.AsyncExitStack() as stack:
            self._home.prepare()
            with files.explained(self._home.path, variable="FACETMESH_HOME"):
                stack.enter_context(self._home.owned())
            # What a killed supervisor left is ending by itself, for its lifeline is cut.
            await end(remains(self._home), grace_s=GRACE_S)
            self._ports = choose(self._ports.base)
            with files.explained(self._home.path, variable="FACETMESH_HOME"):
                ensure(self._home)
            reader, writer = os.pipe()
            stack.callback(os.close, writer)
            stack.callback(os.close, reader)
            stack.push_async_callback(self._stop)
            try:
                async with asyncio.timeout(START_S):
                    await self._start(programs(Place(self._home, self._ports, reader), self._layout))
            except TimeoutError:
                raise errors.FailedPrecondition(
                    f"The mesh did not serve within {START_S:.0f} s: see {self._home.logs}.", reason="START_TIMEOUT",
                ) from None
            self._resources = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None,
    ) -> None:
        """Stops all processes; returns when none is left."""
        await self._resources.aclose()

    @property
    def pids(self) -> dict[str, int]:
        """The process ids, by name."""
        return {name: process.pid for name, process in self._running.items()}

    @property
    def logs(self) -> dict[str, Path]:
        """The log of each process, by name."""
        return {name: process.program.log for name, process in self._running.items()}

    async def _start(self, wanted: list[Program]) -> None:
        for tier in Tier:
            await self._start_together([program for program in wanted if program.tier is tier])
        self._keepers = [asyncio.create_task(self._keep(program)) for program in wanted]
        self._home.write(self._home.endpoints, self._ports.addresses(gateway=self._layout.gateway))

    async def _start_together(self, wanted: list[Program]) -> None:
        """Returns when all of one tier serve."""
        for program in wanted:
            rotate(program.log)
            self._report(Change(program.name, "starting"))
            self._running[program.name] = await Process.start(program)
        self._note_processes()
        starts = [asyncio.create_task(self._first_serving(program.name)) for program in wanted]
        try:
            await asyncio.gather(*starts)
        finally:
            for task in starts:
                task.cancel()

    async def _first_serving(self, name: str) -> None:
        """Returns when the process serves; raises when it ends before."""
        process = self._running[name]
        serving = asyncio.ensure_future(process.program.serving())
        ended = asyncio.create_task(process.ended())
        try:
            await asyncio.wait([serving, ended], return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                how = describe_exit(ended.result())
                raise errors.FailedPrecondition(
                    f"{name} did not start ({how}): {process.last_words() or 'it said nothing'}",
                    reason="START_FAILED", metadata={"process": name, "log": str(process.program.log)},
                )
            await serving
        finally:
            serving.cancel()
            ended.cancel()
        self._report(Change(name, "serving", f"pid {process.pid}"))

    async def _keep(self, program: Program) -> None:
        """Replaces a process each time that it ends, with a growing wait while it keeps ending."""
        backoff_s = FIRST_BACKOFF_S
        while True:
            process = self._running[program.name]
            started = time.monotonic()
            code = await process.ended()
            if time.monotonic() - started > STEADY_S:
                backoff_s = FIRST_BACKOFF_S
            detail = f"{describe_exit(code)}; starts again in {backoff_s:.1f} s. {process.last_words()}"
            self._report(Change(program.name, "died", detail))
            await asyncio.sleep(backoff_s)
            backoff_s = min(backoff_s * 2, LONGEST_BACKOFF_S)
            try:
                self._running[program.name] = await Process.start(program)
                self._report(Change(program.name, "starting", f"pid {self._running[program.name].pid}"))
                self._note_processes()
            except OSError as problem:
                # A full disk or no memory must not end the watch.
                self._report(Change(program.name, "starting", f"trouble: {problem}"))

    async def _stop(self) -> None:
        for task in self._keepers:
            task.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        self._home.endpoints.unlink(missing_ok=True)
        for tier in STOP_ORDER:
            own = [process for process in self._running.values() if process.program.tier is tier]
            grace_s = _SIDECARS_GRACE_S if tier is Tier.SIDECARS else GRACE_S
            await asyncio.gather(*(process.stop(grace_s) for process in own))
        for name in self._running:
            self._report(Change(name, "stopped"))
        self._home.processes.unlink(missing_ok=True)

    def _note_processes(self) -> None:
        """Writes down who runs, for the next start should this one be killed."""
        self._home.write(
            self._home.processes,
            {
                name: {"pid": process.pid, "created": process.identity.create_time()}
                for name, process in self._running.items() if process.exit_code is None
            },
        )


def noted(home: Home) -> dict[str, psutil.Process]:
    """The processes of the mesh that were written down and still run, by name."""
    found = {}
    for name, one in home.read(home.processes).items():
        with contextlib.suppress(psutil.NoSuchProcess, KeyError, TypeError):
            process = psutil.Process(one["pid"])
            # The number alone could by now be another's.
            if is_alive(process) and abs(process.create_time() - one["created"]) < 1:
                found[name] = process
    return found


def remains(home: Home) -> list[psutil.Process]:
    """The processes of the mesh, and all that they started."""
    return [one for process in noted(home).values() for one in (process, *descendants(process))]
