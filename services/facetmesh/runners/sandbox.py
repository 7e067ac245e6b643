"""What a child gives up before it runs anything: see `harden`."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import resource
import signal
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from facetmesh.kit import slices
from facetmesh.runners import landlock, seccomp

if TYPE_CHECKING:
    from collections.abc import Sequence

# linux/prctl.h, linux/capability.h
_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITY_VERSION = 0x20080522
_CAPSET = {"x86_64": 126, "aarch64": 91}

# What Python and the engines read of the system: libraries, and how many cores there are.
_SYSTEM = (
    "/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/localtime", "/proc/self", "/proc/cpuinfo", "/proc/meminfo",
    "/proc/stat", "/proc/sys/vm/overcommit_memory", "/sys/devices/system", "/sys/fs/cgroup", "/dev/null",
    "/dev/urandom", "/dev/random", "/dev/zero",
)  # fmt: skip
_GPU = ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", *(f"/dev/nvidia{index}" for index in range(16)))
_GPU_SYSTEM = ("/proc/driver/nvidia", "/proc/devices", "/sys/module/nvidia", "/sys/bus/pci", "/sys/devices")


@dataclass(frozen=True, slots=True)
class Confinement:
    """What a child is to be left with."""

    memory_bytes: int
    """Private memory (RLIMIT_DATA)."""
    open_files: int
    """Open file descriptors."""
    readable: Sequence[str] | None = None
    """Folders whose files it may read by name, beside what it runs on; None for every file."""
    gpu: bool = False
    """Whether it may use NVIDIA's devices."""
    nice: int = 0
    """How readily it leaves the cores to others, up to 19."""


def harden(confinement: Confinement, *, parent_pid: int) -> None:
    """Gives up, for good, what native code could misuse. To be called while there is one thread.

    No new privileges by exec, no capabilities, no core dumps (they hold images),
    limits on memory and descriptors; first in line for the kernel's out-of-memory
    killer; and killed with its parent, should that one be killed while native code
    runs here and nobody reads the socket. Where the kernel has them (`kernel`):
    Landlock, by which only libraries and models can be read and nothing written,
    and a seccomp filter, by which there are no sockets, processes and files to
    write.

    Raises:
        OSError: The kernel refused what it has: better no runner than an open one.
    """
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent_pid:
        # It was killed before PR_SET_PDEATHSIG could tell us.
        os._exit(0)
    for limit, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, confinement.open_files),
        (resource.RLIMIT_DATA, confinement.memory_bytes),
    ):
        _, hard = resource.getrlimit(limit)
        lowered = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (lowered, lowered))
    os.nice(confinement.nice)
    slices.ask(slices.USUAL)  # its parent asks for short ones
    # The first is for kernels that group processes by session (sched_autogroup). Absent where /proc is hidden.
    for name, value in (("autogroup", confinement.nice), ("oom_score_adj", 1000)):
        with contextlib.suppress(OSError):
            Path("/proc/self", name).write_text(str(value))
    _drop_capabilities()
    if landlock.version():
        _landlock(confinement)
    if seccomp.available():
        seccomp.install(devices=confinement.gpu)


def kernel() -> dict[str, bool]:
    """Which of the kernel's means there are on this machine."""
    return {
        "seccomp: no sockets, no processes, no writing": seccomp.available(),
        "Landlock: no files but libraries and models": landlock.version() > 0,
    }


def _landlock(confinement: Confinement) -> None:
    system = [*_SYSTEM, *(_GPU_SYSTEM if confinement.gpu else ())]
    python = [sys.prefix, sys.base_prefix, *(path for path in sys.path if path)]
    landlock.restrict(
        trees=[Path("/")] if confinement.readable is None else map(Path, [*system, *python]),
        files=map(Path, confinement.readable or ()),
        devices=map(Path, _GPU if confinement.gpu else ()),
    )


def _drop_capabilities() -> None:
    """Nothing is left to root but its files."""
    number = _CAPSET.get(platform.machine())
    if number is None:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(number, struct.pack("=Ii", _CAPABILITY_VERSION, 0), bytes(24)) != 0:
        raise OSError(ctypes.get_errno(), "capset refused")


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl refused")
