"""What drives a real mesh from outside, as its users do: the command line and signals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import psutil
import pytest

from facetmesh.cli.mesh.process import descendants, is_alive
from facetmesh.client import DeadlineExceeded, FacetmeshError, ResourceExhausted, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from facetmesh.cli.mesh.home import Home
    from facetmesh.client import Client

_Answer = TypeVar("_Answer")
DEADLINE_S = 120
"""Reached only where something is broken: a machine with other work takes its time."""
AWAY = (Unavailable, DeadlineExceeded)
_USERS_OWN = {"FACETMESH_HOME", "FACETMESH_KEY", "FACETMESH_ADDRESS"}


@dataclass
class Cli:
    """`facetmesh …` on one state folder."""

    home: Home

    def __call__(self, *arguments: str, key_file: Path | None = None, cwd: Path | None = None) -> Any:
        """Runs a command to its end; its stdout is JSON."""
        command = [sys.executable, "-m", "facetmesh.cli", "--json", f"--home={self.home.path}"]
        if key_file is not None:
            command.append(f"--key-file={key_file}")
        return subprocess.run(
            [*command, *arguments], capture_output=True, text=True, check=False, timeout=DEADLINE_S, cwd=cwd,
            env={name: value for name, value in os.environ.items() if name not in _USERS_OWN},
        )

    def ok(self, *arguments: str, **options: Any) -> Any:
        """Runs a command that must succeed; returns its answer."""
        done = self(*arguments, **options)
        assert done.returncode == 0, f"{arguments}: {done.stderr}\n{self.logs()}"
        return json.loads(done.stdout)

    def insist(self, *arguments: str, **options: Any) -> Any:
        """The answer of a command that succeeds sooner or later."""
        def succeeds() -> Any:
            done = self(*arguments, **options)
            return done if done.returncode == 0 else None

        return json.loads(until(succeeds, f"{arguments} succeeds").stdout)

    def pids(self) -> dict[str, int]:
        """The processes of the mesh, by name."""
        return {name: int(one["pid"]) for name, one in self.home.read(self.home.processes).items()}

    def family(self) -> list[psutil.Process]:
        """The supervisor and all that it started, runners too."""
        owner = self.home.owner()
        assert owner is not None
        supervisor = psutil.Process(owner)
        return [supervisor, *descendants(supervisor)]

    def logs(self) -> str:
        """The end of each log."""
        return "\n".join(
            f"--- {path.name}\n{path.read_text()[-1500:]}" for path in sorted(self.home.logs.glob("*.jsonl"))
        )


def until(
    condition: Callable[[], Any], what: str | Callable[[], str], deadline_s: float = DEADLINE_S
) -> Any:
    """What condition returns once it is true; fails, and says what was waited for."""
    deadline = time.monotonic() + deadline_s
    while time.monotonic() < deadline:
        if result := condition():
            return result
        time.sleep(0.05)
    pytest.fail(f"not within {deadline_s} s: {what if isinstance(what, str) else what()}")


def patiently(
    call: Callable[[], _Answer], *, away: tuple[type[FacetmeshError], ...] = (*AWAY, ResourceExhausted),
    also: tuple[type[FacetmeshError], ...] = (), deadline_s: float = 2 * DEADLINE_S,
) -> _Answer:
    """What the call returns, repeated while it is told to come again, or fails with one of also.

    A process that was killed keeps its part of a tenant's limits for a moment: its successor has little to give.
    """
    deadline = time.monotonic() + deadline_s
    while True:
        try:
            return call()
        except (*away, *also):
            if time.monotonic() > deadline:
                raise
        time.sleep(0.1)


def lines(log: Path) -> list[dict[str, Any]]:
    """What a log of JSON lines has; the last may still be being written, and libraries write what they like."""
    whole, _, _ = log.read_text().rpartition("\n")
    return [json.loads(line) for line in whole.splitlines() if line.startswith("{")]


def none_left(family: list[psutil.Process]) -> bool:
    """Whether all of them are gone."""
    return not any(is_alive(process) for process in family)


def consented(client: Client, photo: bytes) -> str:
    """The name of a consent to fuse a photo's largest face."""
    return client.create_consent(
        [photo], subject="somebody", purpose="a test", evidence=b"signed",
        expire_time=datetime.now(UTC) + timedelta(hours=1),
    ).name
