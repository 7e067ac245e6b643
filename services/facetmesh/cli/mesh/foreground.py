"""A mesh in the foreground: one readable log of all its processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from facetmesh.cli import output
from facetmesh.cli.mesh.ports import SERVICES
from facetmesh.cli.mesh.programs import SIDECAR
from facetmesh.cli.mesh.supervisor import Change, Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from facetmesh.cli.mesh.home import Home

_POLL_S = 0.2
_NAME_WIDTH = max(len(name) for name in (SIDECAR, *SERVICES))
_NOT_SHOWN = frozenset({"time", "level", "service", "logger", "message", "exception", "trace_id", "taskName"})
_STYLES = {"warning": "yellow", "error": "red", "critical": "bold red"}
_STATES = {"serving": "green", "died": "bold red"}


async def supervise(home: Home, port_base: int, serving: Callable[[], None]) -> None:
    """Runs a mesh until cancelled, and prints what its processes log.

    Args:
        home: Its state folder.
        port_base: It listens from the port after this one on; 0 finds free ones.
        serving: Is called once all serve.
    """
    async with Supervisor(home, port_base, tell):
        follower = asyncio.create_task(_follow(home))
        try:
            serving()
            await asyncio.Event().wait()
        finally:
            follower.cancel()


def tell(change: Change) -> None:
    """Prints what happened to a process."""
    style = _STATES.get(change.state, "dim")
    output.err.print(
        f"[bold]{change.process:<{_NAME_WIDTH}}[/] [{style}]{change.state}[/] {escape(change.detail)}",
        highlight=False, soft_wrap=True,
    )


async def _follow(home: Home) -> None:
    """Prints what is added to the logs. The processes write their files themselves: we can die without harm to them."""
    read = {name: _size(home.logs / f"{name}.jsonl") for name in (SIDECAR, *SERVICES)}
    while True:
        for name, start in read.items():
            path = home.logs / f"{name}.jsonl"
            if _size(path) < start:
                start = 0  # noqa: PLW2901 - the file was begun anew
            with contextlib.suppress(OSError), path.open("rb") as log:
                log.seek(start)
                # A line that is not whole yet is read the next time.
                whole, _, _ = log.read().rpartition(b"\n")
                for line in whole.splitlines():
                    _print(name, line.decode(errors="replace"))
                read[name] = start + (len(whole) + 1 if whole else 0)
        await asyncio.sleep(_POLL_S)


def _print(name: str, line: str) -> None:
    try:
        entry: dict[str, Any] = json.loads(line)
        extras = " ".join(f"{key}={value}" for key, value in entry.items() if key not in _NOT_SHOWN)
        level, text = str(entry.get("level", "info")), f"{escape(str(entry['message']))} [dim]{escape(extras)}[/]"
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError):
        level, text = "info", escape(line)
    style = _STYLES.get(level, "default")
    output.err.print(f"[bold]{name:<{_NAME_WIDTH}}[/] [{style}]{text}[/]", highlight=False, soft_wrap=True)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
