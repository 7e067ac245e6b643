"""A program that tries to get out; `tried` says how that went, and never how it should have gone."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facetmesh.runners.tasks import Reply

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from facetmesh.runners.tasks import Context, Task

_PTRACE_ATTACH, _PTRACE_ATTACH_CALL = 16, 101
_IO_URING_SETUP, _CLONE3 = 425, 435


def _syscall(*arguments: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(*arguments) < 0:
        raise OSError(ctypes.get_errno(), "refused")


def _raise_memory() -> None:
    import resource  # noqa: PLC0415 - beside its use

    resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


ATTEMPTS: Mapping[str, Callable[[str], object]] = {
    "internet": lambda _: socket.socket(socket.AF_INET, socket.SOCK_STREAM),
    "udp": lambda _: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM),
    "unix": lambda _: socket.socket(socket.AF_UNIX),
    "netlink": lambda _: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "pair": lambda _: socket.socketpair(),
    "read": lambda path: Path(path).read_bytes(),
    "list": os.listdir,
    "write": lambda path: Path(path).write_bytes(b"x"),
    "append": lambda path: os.open(path, os.O_APPEND | os.O_WRONLY),
    "truncate": lambda path: os.truncate(path, 0),
    "delete": lambda path: Path(path).unlink(),
    "rename": lambda path: Path(path).rename(path + "2"),
    "link": lambda path: Path(path + ".link").symlink_to(path),
    "chmod": lambda path: Path(path).chmod(0o777),
    "touch": os.utime,
    "folder": lambda path: Path(path + ".d").mkdir(),
    "fork": lambda _: os.fork(),
    "exec": lambda _: subprocess.run([sys.executable, "-c", "1"], check=True),
    "replace": lambda _: os.execv(sys.executable, [sys.executable]),  # noqa: S606 - what an intruder would do
    "kill": lambda _: os.kill(os.getppid(), 0),
    "kill all": lambda _: os.kill(-1, 0),
    "queue": lambda _: signal.pidfd_send_signal(os.pidfd_open(os.getppid()), 0),
    "trace": lambda _: _syscall(_PTRACE_ATTACH_CALL, _PTRACE_ATTACH, os.getppid(), 0, 0),
    "uring": lambda _: _syscall(_IO_URING_SETUP, 8, 0),
    "clone3": lambda _: _syscall(_CLONE3, 0, 0),
    "limits": lambda _: _raise_memory(),
    "parent's memory": lambda _: Path(f"/proc/{os.getppid()}/mem").read_bytes(),
    "parent's environment": lambda _: Path(f"/proc/{os.getppid()}/environ").read_bytes(),
    "disk": lambda _: Path("/dev/vda").read_bytes(),
}


def attempt(_: Context, arguments: Mapping[str, Any], __: Sequence[bytes]) -> Reply:
    """Replies how an attempt went: "done", or the error's name."""
    try:
        ATTEMPTS[arguments["what"]](arguments.get("path", ""))
    except OSError as error:
        return Reply({"how": type(error).__name__, "errno": error.errno})
    except ValueError as error:
        return Reply({"how": type(error).__name__, "errno": 0})
    return Reply({"how": "done", "errno": 0})


def work(_: Context, __: Mapping[str, Any], ___: Sequence[bytes]) -> Reply:
    """What it must still be able to do: threads, memory, and its own life."""
    import threading  # noqa: PLC0415 - beside its use

    said: list[int] = []
    threads = [threading.Thread(target=said.append, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.kill(os.getpid(), 0)
    with Path("/dev/null").open("rb"):
        pass
    status = dict(line.split(":\t") for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    return Reply({"threads": len(said), "capabilities": status["CapEff"], "seccomp": status["Seccomp"]})


def spin(_: Context, __: Mapping[str, Any], ___: Sequence[bytes]) -> Reply:
    """Starts threads without end."""
    import threading  # noqa: PLC0415 - beside its use

    while True:
        threading.Thread(target=threading.Event().wait, daemon=True).start()


TASKS: Mapping[str, Task] = {"attempt": attempt, "work": work, "spin": spin}
