"""What a child gives up before it runs anything: see `harden`."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
from pathlib import Path

# linux/prctl.h
_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38


def harden(*, memory_bytes: int, open_files: int, parent_pid: int) -> None:
    """Gives up, for good, what native code could misuse.

    No new privileges by exec, no core dumps (they hold images), no writing to
    files, limits on memory and descriptors; first in line for the kernel's
    out-of-memory killer; and killed with its parent, should that one be killed
    while native code runs here and nobody reads the socket.

    Raises:
        OSError: The kernel refused: better no runner than an open one.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    for option, value in ((_PR_SET_NO_NEW_PRIVS, 1), (_PR_SET_PDEATHSIG, int(signal.SIGKILL))):
        if libc.prctl(option, value, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl refused")
    if os.getppid() != parent_pid:
        # It was killed before PR_SET_PDEATHSIG could tell us.
        os._exit(0)
    for limit, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, open_files),
        (resource.RLIMIT_DATA, memory_bytes),
    ):
        _, hard = resource.getrlimit(limit)
        lowered = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (lowered, lowered))
    # Absent where /proc is hidden.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
