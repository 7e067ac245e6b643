"""How soon a thread gets a core when it wakes: by how long it says that it will keep it (Linux 6.12 and later)."""

from __future__ import annotations

import ctypes
import os
import platform
import struct

USUAL = 0
"""As long as the kernel thinks right."""
SHORT = 100_000
"""The shortest, in nanoseconds. Who asks for that does not wait for the end of others' slices; it has no more of the
cores for it."""
# Which system call it is: the C library has no function for it.
_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}
_ATTRIBUTES = "=IIQiIQQQ"


def ask(nanoseconds: int) -> None:
    """Says how long this thread, and those that it starts from now on, will keep a core at a time.

    Kernels that do not know of it take no notice. Processes that are started inherit it as threads do.
    """
    number = _SCHED_SETATTR.get(platform.machine())
    if number is None:
        return
    policy, nice = os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0)
    size = struct.calcsize(_ATTRIBUTES)
    ctypes.CDLL(None).syscall(number, 0, struct.pack(_ATTRIBUTES, size, policy, 0, nice, 0, nanoseconds, 0, 0), 0)
