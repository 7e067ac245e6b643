"""A mesh that runs on when the command that started it has ended."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import psutil

from facetmesh.cli import output
from facetmesh.cli.mesh.process import end, last_words, rotate
from facetmesh.cli.mesh.supervisor import GRACE_S, Change, Supervisor, remains
from facetmesh.kit.errors import BY_CODE, FacetmeshError, FailedPrecondition, Internal

if TYPE_CHECKING:
    from collections.abc import Callable

    from facetmesh.cli.mesh.home import Home
    from facetmesh.cli.mesh.layout import Layout
    from facetmesh.cli.options import Options

_STOP_S = 3 * GRACE_S
_POLL_S = 0.05


def start(options: Options, port_base: int, layout: Layout) -> None:
    """Starts a supervisor of its own session, and returns when its mesh serves.

    Raises:
        FacetmeshError: What the supervisor could not start for.
    """
    options.home.prepare()
    log = options.home.logs / "supervisor.jsonl"
    rotate(log)
    reader, writer = os.pipe()
    command = [
        sys.executable, "-P", "-m", "facetmesh.cli", f"--home={options.home.path}", "up",
        f"--port-base={port_base}", f"--ready-fd={writer}", f"--sidecar={layout.sidecar}",
    ]
    if layout.components:
        command.append(f"--components={layout.components}")
    if layout.gateway:
        command.append("--gateway")
    with log.open("ab") as file, os.fdopen(reader, encoding="utf-8") as news:
        child = subprocess.Popen(  # noqa: S603 - ourselves
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, pass_fds=[writer], start_new_session=True,
        )
        os.close(writer)
        try:
            with output.err.status("starting") as status:
                ready = _await_ready(news, status.update)
        except BaseException:
            child.terminate()
            child.wait()
            raise
    if not ready:
        child.wait()
        raise FailedPrecondition(
            f"The supervisor ended (exit code {child.returncode}): {last_words(log)}", reason="START_FAILED",
        )


def _await_ready(news: Any, show: Callable[[str], None]) -> bool:
    """Whether the supervisor said that all serve before it closed the pipe."""
    serving: set[str] = set()
    for line in news:
        said = json.loads(line)
        if said["state"] == "ready":
            return True
        if said["state"] == "failed":
            kind = BY_CODE.get(said["code"], Internal)
            raise kind(said["message"], reason=said["reason"], metadata=said["metadata"])
        if said["state"] == "serving":
            serving.add(said["process"])
        show(f"starting {said['process']}; serving: {', '.join(sorted(serving)) or 'none yet'}")
    return False


async def supervise(home: Home, port_base: int, layout: Layout, ready_fd: int) -> None:
    """Runs a mesh until cancelled, and tells who waits at ready_fd how its start went."""
    with os.fdopen(ready_fd, "w", encoding="utf-8") as news:

        def tell(**said: Any) -> None:
            # A full disk, or nobody who waits any more, must not end the mesh.
            with contextlib.suppress(OSError):
                sys.stderr.write(json.dumps({"time": datetime.now(UTC).isoformat(), **said}) + "\n")
                sys.stderr.flush()
            if not news.closed:
                with contextlib.suppress(OSError):
                    news.write(json.dumps(said) + "\n")
                    news.flush()

        def report(change: Change) -> None:
            tell(**asdict(change))

        try:
            async with Supervisor(home, port_base, report, layout):
                tell(state="ready")
                news.close()
                await asyncio.Event().wait()
        except FacetmeshError as error:
            tell(
                state="failed", code=error.code, reason=error.reason, message=error.message, metadata=error.metadata,
            )
            raise


async def stop(home: Home) -> bool:
    """Stops the mesh, however it was started; returns whether there was one.

    Raises:
        Internal: NOT_STOPPED; it did not end.
    """
    owner = home.owner()
    left = remains(home)
    if owner is not None:
        with contextlib.suppress(psutil.NoSuchProcess):  # it may be ending by itself
            supervisor = psutil.Process(owner)
            supervisor.send_signal(signal.SIGTERM)
            await end([supervisor], grace_s=_STOP_S)
    # What is left now lost its lifeline with the supervisor, and is ending.
    await end(left, grace_s=GRACE_S)
    home.processes.unlink(missing_ok=True)
    home.endpoints.unlink(missing_ok=True)
    if home.owner() is not None:
        raise Internal(f"The mesh on {home.path} did not stop.", reason="NOT_STOPPED")
    return owner is not None or bool(left)
