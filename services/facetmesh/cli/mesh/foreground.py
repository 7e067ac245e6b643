"""A mesh in the foreground: one readable log of all its processes."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from rich.markup import escape

from facetmesh.cli import output
from facetmesh.cli.mesh.lines import parse
from facetmesh.cli.mesh.supervisor import Change, Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from facetmesh.cli.mesh.home import Home
    from facetmesh.cli.mesh.layout import Layout

_POLL_S = 0.2
_NAME_WIDTH = len("daprd-detection")
_STYLES = {"warning": "yellow", "error": "red", "critical": "bold red", "fatal": "bold red"}
_STATES = {"serving": "green", "died": "bold red"}


async def supervise(home: Home, port_base: int, layout: Layout, serving: Callable[[], None]) -> None:
    """Runs a mesh until cancelled, and prints what its processes log.

    Args:
        home: Its state folder.
        port_base: Its processes listen from here on; 0 finds free ports.
        layout: What it is made of.
        serving: Is called once all serve.
    """
    async with Supervisor(home, port_base, tell, layout) as mesh:
        follower = asyncio.create_task(_follow(mesh.logs))
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


async def _follow(logs: Mapping[str, Path]) -> None:
    """Prints what is added to the logs. The processes write their files themselves: we can die without harm to them."""
    read = {name: _size(path) for name, path in logs.items()}
    while True:
        for name, start in read.items():
            path = logs[name]
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
    said = parse(line)
    text = f"[{_STYLES.get(said.level, 'default')}]{escape(said.text)}[/]"
    extras = f" [dim]{escape(said.extras)}[/]" if said.extras else ""
    output.err.print(f"[bold]{name:<{_NAME_WIDTH}}[/] {text}{extras}", highlight=False, soft_wrap=True)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
