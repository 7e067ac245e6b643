"""Starting a runner's child."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import socket
import sys
from typing import TYPE_CHECKING

from facetmesh.runners.frames import Receiver
from facetmesh.runners.sandbox import Confinement

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import Sequence
    from pathlib import Path

    from facetmesh.runners.settings import EngineSetting, RunnerLimits

_KEPT_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "TMPDIR")
_NO_HOME = "/nonexistent"


@dataclasses.dataclass(frozen=True, slots=True)
class Child:
    """A child that was started."""

    process: Process
    calls: asyncio.WriteTransport
    """Where calls go."""
    replies: Receiver
    """Where replies come."""
    stderr: asyncio.StreamReader
    """What it writes to its standard error. No pipe of asyncio's, which would tell
    the end of the process only when nobody has that open any more."""
    closing: asyncio.StreamWriter
    """Ends that."""

    def close(self) -> None:
        """Closes our ends."""
        self.calls.close()
        self.closing.close()


async def spawn(
    program: str, setting: EngineSetting, limits: RunnerLimits, readable: Sequence[Path] | None
) -> Child:
    """Starts a child.

    It is a new program, not a fork, because engines and gRPC start threads. It
    gets no descriptor of ours but its ends of two sockets, and of our environment
    only what it needs.

    Args:
        program: The module with the tasks.
        setting: How its engines are to be opened.
        limits: What it may use.
        readable: Folders whose files it may read; None for all.

    Raises:
        OSError: No process could be made.
    """
    confinement = Confinement(
        limits.memory_bytes,
        limits.open_files,
        None if readable is None else [str(path) for path in readable],
        gpu=setting.device != "cpu",
        nice=limits.nice,
    )
    options = {
        "parent_pid": os.getpid(),
        "confinement": dataclasses.asdict(confinement),
        "concurrency": limits.concurrency,
        "kept_bytes": limits.kept_bytes,
        "setting": dataclasses.asdict(setting),
    }
    frames, their_frames = socket.socketpair()
    stderr, their_stderr = socket.socketpair()
    with their_frames, their_stderr:
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-B", "-P", "-m", "facetmesh.runners.worker",
                program, str(their_frames.fileno()), json.dumps(options),
                pass_fds=(their_frames.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=their_stderr.fileno(),
                env=_environment(setting),
                cwd="/",
                start_new_session=True,
            )  # fmt: skip
        except BaseException:
            frames.close()
            stderr.close()
            raise
    calls, replies = await asyncio.get_running_loop().create_unix_connection(
        lambda: Receiver(max_header_bytes=limits.max_header_bytes, max_blob_bytes=limits.max_blob_bytes), sock=frames
    )
    return Child(process, calls, replies, *await asyncio.open_unix_connection(sock=stderr))


def _environment(setting: EngineSetting) -> dict[str, str]:
    # No secrets, and no sidecar's address; but the child imports what its parent would.
    # Nor a home: OpenVINO looks for its telemetry's file there, and dies of not being allowed to.
    kept = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ} | {"HOME": _NO_HOME}
    return {**kept, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), **setting.environment()}
