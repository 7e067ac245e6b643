"""A program for the pool's tests: tasks that behave, and tasks that do not."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facetmesh.kit import errors
from facetmesh.runners.tasks import Reply

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from facetmesh.runners.tasks import Context, Task

FLOOD_LINES = 1000
PR_SET_NAME = 15


def echo(_: Context, arguments: Mapping[str, Any], blobs: Sequence[bytes]) -> Reply:
    """Replies what came, and who replies."""
    return Reply({"pid": os.getpid(), **arguments}, blobs)


def environment(_: Context, __: Mapping[str, Any], ___: Sequence[bytes]) -> Reply:
    """Replies what the child can see of the world."""
    group = Path("/proc/self/autogroup")
    status = dict(line.split(":\t") for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    return Reply({
        "variables": dict(os.environ),
        "no_new_privs": status["NoNewPrivs"],
        "descriptors": [str(Path(f"/proc/self/fd/{fd}").readlink()) for fd in (0, 1)],
        "session": os.getsid(0) == os.getpid(),
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "autogroup": int(group.read_text().split()[-1]) if group.exists() else None,
    })


def sleep(_: Context, arguments: Mapping[str, Any], __: Sequence[bytes]) -> Reply:
    """Calls its thread by the `name`, then sleeps until `release` exists. It can say it in no other way."""
    ctypes.CDLL(None).prctl(PR_SET_NAME, arguments["name"].encode(), 0, 0, 0)
    while not Path(arguments["release"]).is_symlink():
        time.sleep(0.005)
    return Reply({"pid": os.getpid()})


def die(_: Context, arguments: Mapping[str, Any], __: Sequence[bytes]) -> Reply:
    """Dies of a signal."""
    os.kill(os.getpid(), signal.Signals[arguments.get("signal", "SIGILL")])
    return Reply()


def refuse(_: Context, arguments: Mapping[str, Any], __: Sequence[bytes]) -> Reply:
    """Raises one of our errors."""
    raise errors.BY_CODE[arguments["code"]]("Not this.", reason="NOT_THIS", metadata={"image": "source"})


def fail(_: Context, __: Mapping[str, Any], ___: Sequence[bytes]) -> Reply:
    """Raises an error that is not ours."""
    raise RuntimeError("the database password is hunter2")


def devour(_: Context, arguments: Mapping[str, Any], __: Sequence[bytes]) -> Reply:
    """Allocates memory."""
    return Reply({"size": len(bytearray(arguments["bytes"]))})


def keep(context: Context, arguments: Mapping[str, Any], _: Sequence[bytes]) -> Reply:
    """Takes memory and keeps it, as a model does; several by their `name`."""
    context.once(arguments.get("name"), lambda: b"x" * arguments["bytes"])
    return Reply({"pid": os.getpid()})


def write(_: Context, arguments: Mapping[str, Any], __: Sequence[bytes]) -> Reply:
    """Writes to a file."""
    Path(arguments["path"]).write_text("x")
    return Reply()


def lie(_: Context, arguments: Mapping[str, Any], __: Sequence[bytes]) -> Reply:
    """Sends the parent bytes of its own on the socket, around the protocol."""
    (socket,) = (int(path.name) for path in Path("/proc/self/fd").iterdir() if path.is_socket() and path.name != "2")
    os.write(socket, bytes.fromhex(arguments["bytes"]))
    return Reply()


def flood(_: Context, __: Mapping[str, Any], ___: Sequence[bytes]) -> Reply:
    """Writes a lot to standard error."""
    for line in range(FLOOD_LINES):
        sys.stderr.write(f"line {line}\n")
    sys.stderr.flush()
    return Reply()


def count(context: Context, _: Mapping[str, Any], __: Sequence[bytes]) -> Reply:
    """Replies how often it was made anew."""
    return Reply({"made": context.once("made", lambda: os.urandom(8).hex())})


TASKS: Mapping[str, Task] = {
    task.__name__: task
    for task in (echo, environment, sleep, die, refuse, fail, devour, keep, write, lie, flood, count)
}
