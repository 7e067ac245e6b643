"""What every measurement has in common: the machine's name, and where results are written."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

RESULTS = Path(__file__).parent / "results"
"""Where results are kept, a file for each bench."""
_QUIET = 0.25
"""Up to this share of the cores may be busy with other work before it counts as busy."""
_LISTEN_S = 1.0


@dataclass(frozen=True, slots=True)
class Machine:
    """Where something was measured. A figure without it says nothing."""

    cpu: str
    """The processor's name."""
    cores: int
    """Cores that this process may use."""
    memory_gib: float
    system: str
    """Kernel and architecture."""
    python: str
    packages: Mapping[str, str]
    """Versions of what the figures depend on."""

    @classmethod
    def here(cls, *packages: str) -> Machine:
        """This machine, with the versions of these packages."""
        return cls(
            _cpu(), len(os.sched_getaffinity(0)), round(psutil.virtual_memory().total / 2**30, 1),
            f"{platform.system()} {platform.release()} {platform.machine()}", platform.python_version(),
            {name: version(name) for name in packages},
        )  # fmt: skip


def busy() -> bool:
    """Whether others work on this machine now: asked before and after a run, it goes into the results."""
    return bool(psutil.cpu_percent(_LISTEN_S) > 100 * _QUIET)


def stand_aside() -> None:
    """Leaves the cores to all others, from now on: for a process that stands for one on another machine.

    Kernels that group processes by session (sched_autogroup) compare priorities within a session only, so it gets one
    of its own.
    """
    with contextlib.suppress(PermissionError):  # it leads a session already
        os.setsid()
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text("19")


def seconds_each(work: Callable[[], object], *, at_least_s: float = 0.2, rounds: int = 5) -> float:
    """The time of one call of work, in seconds: the best of some rounds, since noise only ever adds."""
    calls = 1
    best = float("inf")
    while True:  # how many calls fill a round
        took = _timed(work, calls)
        if took >= at_least_s / 10:
            break
        calls *= 4
    calls = max(1, round(calls * at_least_s / took))
    for _ in range(rounds):
        best = min(best, _timed(work, calls) / calls)
    return best


def write(name: str, machine: Machine, figures: Mapping[str, Any], *, busy: bool) -> Path:
    """Writes the results of one run; returns where.

    Args:
        name: The bench, which names the file.
        machine: Where it was measured.
        figures: What was measured, each name with its unit.
        busy: Whether others worked on the machine meanwhile.
    """
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    found = {
        "bench": name,
        "machine": asdict(machine),
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "busy": busy,
        **figures,
    }
    path.write_text(json.dumps(found, indent=2) + "\n")
    return path


def read(name: str, figure: str) -> dict[str, Any]:
    """A figure of the results that there are, by its name; nothing where it was not measured."""
    path = RESULTS / f"{name}.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    return {figure: found[figure]} if figure in found else {}


def add(name: str, figures: Mapping[str, Any]) -> None:
    """Adds figures of another bench to the results that there are of one."""
    path = RESULTS / f"{name}.json"
    if path.exists():
        path.write_text(json.dumps({**json.loads(path.read_text()), **figures}, indent=2) + "\n")


def _timed(work: Callable[[], object], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        work()
    return time.perf_counter() - start


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"
