"""Runs a program that ends with whoever started it: `python launcher.py PARENT PROGRAM ARGUMENT…`.

Redis, daprd and Envoy know nothing of the lifeline that our own processes watch, so
the system is asked to send them SIGTERM when their parent has died, by kill -9 too.
Run by its path, with nothing imported but this file, to be gone within a moment.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h; exec keeps what it sets


def main() -> None:
    """Becomes the program."""
    parent, *command = sys.argv[1:]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    # A parent that was gone before that sends nothing any more.
    if os.getppid() != int(parent):
        sys.exit("the supervisor is gone")
    os.execv(command[0], command)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main()
