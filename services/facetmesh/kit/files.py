"""Files that are whole or not there, and refusals of a file system in plain words. Standard library only."""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from facetmesh.kit import errors

if TYPE_CHECKING:
    from collections.abc import Iterator

PRIVATE = 0o600


def write(path: Path, content: bytes | str, *, mode: int = 0o644) -> None:
    """Replaces the file at path by content, all or nothing, with these permissions from its first byte on."""
    data = content.encode() if isinstance(content, str) else content
    # mkstemp makes it 0600: nobody reads a secret in the moment before chmod.
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).chmod(mode)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def settle(folder: Path) -> None:
    """Returns once all that was made below folder is on the disk. A file with other links was settled with those."""
    for place, _, names in os.walk(folder):
        for path in (Path(place, name) for name in names):
            if path.stat().st_nlink == 1:
                _sync(path)
        _sync(Path(place))


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the lock that the file at path stands for; waits for it."""
    with path.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextmanager
def explained(folder: Path, *, variable: str) -> Iterator[None]:
    """Turns what the file system refuses below folder into errors that say what to do.

    Args:
        folder: What is being written to.
        variable: The environment variable that chooses another.

    Raises:
        ResourceExhausted: DISK_FULL.
        FailedPrecondition: FOLDER_NOT_WRITABLE.
    """
    try:
        yield
    except OSError as problem:
        if problem.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise errors.ResourceExhausted(
                f"The disk of {folder} is full: make room, or set {variable} to another folder.", reason="DISK_FULL",
            ) from problem
        raise errors.FailedPrecondition(
            f"{folder} cannot be written ({problem.strerror}): set {variable} to another folder.",
            reason="FOLDER_NOT_WRITABLE",
        ) from problem
