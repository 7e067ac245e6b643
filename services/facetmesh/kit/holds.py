"""A hold on deletions: while a backup makes sure of the blobs that its state refers to, none of them may go.

The lock is a file beside the folder, held by the kernel: it ends with the process that has it.
"""

from __future__ import annotations

import asyncio
import fcntl
import time
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from facetmesh.kit.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path
    from typing import TextIO

PATIENCE_S = 5.0
"""How long a deletion waits for a hold to end: they last for as long as it takes to link the folder's files."""
_POLL_S = 0.02


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Nothing in folder is deleted meanwhile. Waits for deletions under way."""
    with _lock_beside(folder) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@asynccontextmanager
async def deleting(folder: Path, *, patience_s: float = PATIENCE_S) -> AsyncIterator[None]:
    """Deletes in folder, once no hold is on it.

    Raises:
        Unavailable: BACKUP_UNDER_WAY; the hold lasted longer than patience_s.
    """
    deadline = time.monotonic() + patience_s
    with _lock_beside(folder) as lock:
        while not _shared(lock):
            if time.monotonic() >= deadline:
                raise Unavailable("A backup is being taken.", reason="BACKUP_UNDER_WAY", retry_after_s=patience_s)
            await asyncio.sleep(_POLL_S)
        yield


@contextmanager
def _lock_beside(folder: Path) -> Iterator[TextIO]:
    with folder.with_name(f"{folder.name}.hold").open("a") as lock:
        yield lock


def _shared(lock: TextIO) -> bool:
    """Whether the lock could be had, together with others that delete."""
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
