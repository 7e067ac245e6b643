"""A folder for what lies in clear, gone when its process has ended, however that ended.

A process that is killed cleans up nothing. So each holds a lock on its folder,
which the kernel gives back, and whoever makes the next folder removes those
that nobody holds.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_PREFIX = "facetmesh-clear-"
"""No other folder of ours begins so: those of older versions have no lock, and may be in use."""


@contextlib.contextmanager
def held(parent: Path) -> Iterator[Path]:
    """A new folder that is this process's, removed in the end; those of processes that are gone are removed first.

    Args:
        parent: Where it is made, on this machine.

    Raises:
        OSError: It cannot be made.
    """
    for left in parent.glob(f"{_PREFIX}*"):
        _remove(left)
    with contextlib.ExitStack() as stack:
        folder = None
        while folder is None:
            folder = _made(parent, stack)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _made(parent: Path, stack: contextlib.ExitStack) -> Path | None:
    """A new folder with a lock on it; None where somebody took it for one that was left, in the moment before."""
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return None
    stack.callback(os.close, descriptor)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return folder if folder.exists() else None


def _remove(folder: Path) -> None:
    """Removes a folder of ours that no process holds."""
    with contextlib.suppress(OSError), contextlib.ExitStack() as stack:  # somebody else's, or gone
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        stack.callback(os.close, descriptor)
        if os.fstat(descriptor).st_uid == os.geteuid():
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
