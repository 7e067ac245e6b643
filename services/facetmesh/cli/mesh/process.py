"""One process of the mesh: started, watched, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from pathlib import Path

KEPT_LOGS = 3
"""A process's log is moved aside at start; so many older ones are kept."""
_TAIL_BYTES = 16_384
_LAST_LINES = 10
"""An error further back than this is not what a process died of."""
_POLL_S = 0.05


class Tier(IntEnum):
    """Each tier serves before the next is started. In which order they end: STOP_ORDER."""

    STORES = 0
    """What sidecars need."""
    SIDECARS = 1
    SERVICES = 2
    GATEWAY = 3


STOP_ORDER = (Tier.SERVICES, Tier.GATEWAY, Tier.SIDECARS, Tier.STORES)
"""While services drain, they still need their sidecars, and the gateway (Envoy cuts its calls off at SIGTERM)."""


@dataclass(frozen=True, slots=True)
class Program:
    """What a process runs."""

    name: str
    tier: Tier
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    """Where what it writes goes."""
    serving: Callable[[], Awaitable[None]]
    """Returns once it serves."""
    lifeline_fd: int | None = None
    """The read end of the pipe that tells it that the supervisor is gone."""
    folder: Path | None = None
    """Where it is started; where the supervisor was, if None."""
    content_of: Mapping[str, Path] = field(default_factory=dict)
    """Variables whose values are what is in these files when it is started."""


class Process:
    """A program that runs."""

    def __init__(self, program: Program, child: asyncio.subprocess.Process) -> None:
        self.program = program
        self._child = child
        self.identity = psutil.Process(child.pid)

    @classmethod
    async def start(cls, program: Program) -> Process:
        """Starts program in a session of its own, so that a terminal's Ctrl-C reaches only the supervisor."""
        environment = {**program.environment, **{name: file.read_text() for name, file in program.content_of.items()}}
        inherited = []
        if program.lifeline_fd is not None:
            environment["FACETMESH_LIFELINE_FD"] = str(program.lifeline_fd)
            inherited.append(program.lifeline_fd)
        with program.log.open("ab") as log:
            child = await asyncio.create_subprocess_exec(
                *program.command,
                stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, env=environment, cwd=program.folder,
                pass_fds=inherited, start_new_session=True,
            )
        return cls(program, child)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._child.pid

    @property
    def exit_code(self) -> int | None:
        """How it ended; None while it runs."""
        return self._child.returncode

    async def ended(self) -> int:
        """Returns its exit code once it has ended."""
        return await self._child.wait()

    async def stop(self, grace_s: float) -> None:
        """Asks it to end, and after grace_s seconds ends it and all that it started."""
        family = [self.identity, *descendants(self.identity)]
        if self.exit_code is None:
            with contextlib.suppress(ProcessLookupError):
                self._child.terminate()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace_s):
                    await self._child.wait()
        await end(family, grace_s=1 if self.exit_code is not None else 0)
        await self._child.wait()

    def last_words(self) -> str:
        """The last thing that its log says of what went wrong."""
        return last_words(self.program.log)


def descendants(process: psutil.Process) -> list[psutil.Process]:
    """All that process started and that still runs."""
    try:
        found: list[psutil.Process] = process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return found


async def end(processes: Sequence[psutil.Process], *, grace_s: float) -> None:
    """Waits until all of processes are gone, and kills what is left after grace_s seconds."""
    deadline = asyncio.get_running_loop().time() + grace_s
    while left := [p for p in processes if is_alive(p)]:
        if asyncio.get_running_loop().time() >= deadline:
            for process in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        await asyncio.sleep(_POLL_S)


def is_alive(process: psutil.Process) -> bool:
    """Whether this very process (not a later one of the same number) still runs."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def rotate(log: Path) -> None:
    """Moves a log of an earlier start aside."""
    if not log.exists() or not log.stat().st_size:
        return
    for number in range(KEPT_LOGS - 1, 0, -1):
        older = log.with_name(f"{log.name}.{number}")
        if older.exists():
            older.replace(log.with_name(f"{log.name}.{number + 1}"))
    log.replace(log.with_name(f"{log.name}.1"))


def last_words(log: Path) -> str:
    """What a log of JSON lines ends with, if that is an error or no JSON (an uncaught exception); else ""."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - _TAIL_BYTES))
            lines = [line for line in stream.read().decode(errors="replace").splitlines() if line.strip()]
    except OSError:
        return ""
    for line in reversed(lines[-_LAST_LINES:]):
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            return line
        if isinstance(entry, dict) and entry.get("level") in {"critical", "error", "fatal"}:
            # daprd says msg.
            said = (entry.get("message") or entry.get("msg"), entry.get("reason"), entry.get("detail"))
            return ": ".join(str(part) for part in said if part)
    return ""


def describe_exit(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return f"killed by {signal.Signals(-code).name}"
    return f"killed by signal {-code}"
