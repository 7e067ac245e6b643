"""What this machine has and lacks, a check a function."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from facetmesh.cli.mesh import binaries
from facetmesh.cli.mesh.ports import DEFAULT_BASE, Ports
from facetmesh.kit import catalog
from facetmesh.kit.errors import FacetmeshError, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from facetmesh.cli.mesh.home import Home

_GIB = 1 << 30
_ENOUGH_MEMORY, _LEAST_MEMORY = 2 * _GIB, _GIB
_ENOUGH_DISK, _LEAST_DISK = 2 * _GIB, _GIB // 16
_TELLING_FLAGS = ("amx_bf16", "avx512_bf16", "avx512_vnni", "avx512f", "avx2", "asimd", "bf16")
_SERVE = 'pip install "facetmesh[serve]"'
_TIMEOUT_S = 10


class Verdict(StrEnum):
    """How a check came out."""

    OK = "OK"
    WARN = "WARN"
    """Something is missing that not everybody needs."""
    FAIL = "FAIL"
    """The mesh cannot run so."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    verdict: Verdict
    found: str
    advice: str = ""
    """What to do about it; empty when nothing."""


def checks(home: Home, only: Collection[str] = ()) -> Iterator[Check]:
    """Looks at one thing after the other, at those alone that are named in `only` if any is.

    Raises:
        NotFound: UNKNOWN_CHECK.
    """
    known: Mapping[str, Callable[[], Check]] = {
        "python": _python,
        "packages": _packages,
        "cpu": _cpu,
        "engine": _engine,
        "isolation": _isolation,
        "gpu": _gpu,
        "memory": _memory,
        "disk": lambda: _disk(home),
        "state-folder": lambda: _state_folder(home),
        "ports": lambda: _ports(home),
        "models": _models,
        "daprd": lambda: _found("daprd", binaries.daprd),
        "sentry": lambda: _found("sentry", binaries.sentry),
        "redis-server": lambda: _found("redis-server", binaries.redis_server),
        "envoy": lambda: _found("envoy", binaries.envoy),
    }
    if unknown := sorted(set(only) - known.keys()):
        raise NotFound(
            f"No check is called {', '.join(unknown)}: there are {', '.join(known)}.", reason="UNKNOWN_CHECK"
        )
    for name in only or known:
        yield known[name]()


def _python() -> Check:
    return Check("Python", Verdict.OK, f"{sys.version.split()[0]} at {sys.executable}")


def _packages() -> Check:
    needed = (
        name
        for line in importlib.metadata.requires("facetmesh") or ()
        if "extra == 'serve'" in line.replace('"', "'") and (name := re.split(r"[^\w.-]", line, maxsplit=1)[0])
    )
    missing = sorted(name for name in needed if not _is_installed(name))
    if missing:
        return Check("packages", Verdict.FAIL, f"missing: {', '.join(missing)}", f"to run a mesh: {_SERVE}")
    return Check("packages", Verdict.OK, "all that the services need")


def _is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _cpu() -> Check:
    try:
        words = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        words = []
    telling = [flag for flag in _TELLING_FLAGS if flag in words] or ["none that matters"]
    return Check("CPU", Verdict.OK, f"{os.cpu_count()} cores; {', '.join(telling)}")


def _engine() -> Check:
    if importlib.util.find_spec("openvino") is None:
        return Check("engine", Verdict.FAIL, "OpenVINO is not installed", _SERVE)
    from facetmesh.runners.probe import probe  # noqa: PLC0415 - the base install lacks what it needs

    try:
        result = probe(catalog.cache_folder())
    except FacetmeshError as problem:
        return Check("engine", Verdict.FAIL, "could not be tried", problem.message)
    trials = ", ".join(
        f"{trial.setting.name} {f'{trial.ms:.1f} ms' if trial.ms is not None else f'died ({trial.failure})'}"
        for trial in result.trials
    )
    batch = f"batches of {result.setting.batch}" if result.setting.batch > 1 else "no batches: they gain nothing here"
    alive = any(trial.ms is not None for trial in result.trials)
    return Check(
        "engine", Verdict.OK if alive else Verdict.FAIL,
        f"{result.engine} uses {result.setting.name}: {trials}; {batch}",
        "" if alive else "no setting lives on this CPU: please report it with this line",
    )


def _isolation() -> Check:
    from facetmesh.runners.sandbox import kernel  # noqa: PLC0415 - as above

    means = kernel()
    return Check(
        "isolation of runners",
        Verdict.OK if all(means.values()) else Verdict.WARN,
        "; ".join(f"{name}{'' if there else ': not in this kernel'}" for name, there in means.items()),
        "" if all(means.values()) else "run on Linux 5.13 or newer with Landlock among its security modules",
    )


def _gpu() -> Check:
    tool = shutil.which("nvidia-smi")
    said = ""
    if tool:
        try:
            said = subprocess.run(  # noqa: S603 - the driver's own tool
                [tool, "--query-gpu=name,memory.total", "--format=csv,noheader"],
                capture_output=True, text=True, timeout=_TIMEOUT_S, check=True,
            ).stdout.strip()
        except (OSError, subprocess.SubprocessError) as problem:
            return Check("GPU", Verdict.WARN, f"nvidia-smi fails: {problem}", "mend the driver, or do without")
    if not said:
        return Check("GPU", Verdict.WARN, "none", "models run on the CPU")
    return Check("GPU", Verdict.OK, said.replace("\n", "; "))


def _memory() -> Check:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return Check("memory", Verdict.WARN, "unknown", f"see that {_ENOUGH_MEMORY / _GIB:.0f} GiB are free")
    return Check(
        "memory", _graded(free, _ENOUGH_MEMORY, _LEAST_MEMORY), f"{free / _GIB:.1f} GiB available",
        "" if free >= _ENOUGH_MEMORY else f"a mesh with its models wants {_ENOUGH_MEMORY / _GIB:.0f} GiB",
    )


def _disk(home: Home) -> Check:
    folder = next(folder for folder in (home.path, *home.path.parents) if folder.exists())
    free = shutil.disk_usage(folder).free
    return Check(
        "disk", _graded(free, _ENOUGH_DISK, _LEAST_DISK), f"{free / _GIB:.1f} GiB free for {home.path}",
        "" if free >= _ENOUGH_DISK else "make room, or set FACETMESH_HOME to another folder",
    )


def _state_folder(home: Home) -> Check:
    folder = next(folder for folder in (home.path, *home.path.parents) if folder.exists())
    if not os.access(folder, os.W_OK | os.X_OK):
        return Check("state folder", Verdict.FAIL, f"{folder} cannot be written", "set FACETMESH_HOME to another")
    return Check("state folder", Verdict.OK, f"{home.path}{'' if home.path.exists() else ' (not made yet)'}")


def _ports(home: Home) -> Check:
    if (home.path / "mesh.lock").exists() and home.owner() is not None:
        return Check("ports", Verdict.OK, "a mesh runs on this state folder")
    ports = Ports(DEFAULT_BASE)
    if taken := ports.taken():
        return Check(
            "ports", Verdict.WARN, f"taken: {', '.join(map(str, taken))}", "start with `facetmesh up --port-base 0`",
        )
    return Check("ports", Verdict.OK, f"{min(ports.all)} to {max(ports.all)} are free")


def _models() -> Check:
    missing = [asset.id for asset in catalog.ASSETS.values() if not catalog.is_fetched(asset.id)]
    if missing:
        return Check(
            "models", Verdict.WARN, f"not fetched: {', '.join(missing)}", "`facetmesh models list` shows how",
        )
    return Check("models", Verdict.OK, f"all fetched into {catalog.cache_folder()}")


def _found(name: str, find: Callable[[], Path]) -> Check:
    """A program of others, as `up --sidecar daprd --gateway` would find it; the embedded mesh needs none."""
    try:
        return Check(name, Verdict.OK, str(find()))
    except FacetmeshError as missing:
        return Check(name, Verdict.WARN, "not found", missing.message)


def _graded(value: int, enough: int, least: int) -> Verdict:
    if value >= enough:
        return Verdict.OK
    return Verdict.WARN if value >= least else Verdict.FAIL
