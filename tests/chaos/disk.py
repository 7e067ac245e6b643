"""A disk that fills up: a small tmpfs where mounting is permitted, else a limit on the size of files (RLIMIT_FSIZE)."""

from __future__ import annotations

import resource
import subprocess
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_SIZE_MIB = 192
_CHUNK = bytes(1 << 16)


@dataclass(frozen=True)
class Disk:
    """A folder that can be full."""

    folder: Path
    mounted: bool
    """Whether it is a file system of its own."""

    @property
    def kind(self) -> str:
        """How it gets full, in words."""
        return f"tmpfs of {_SIZE_MIB} MiB" if self.mounted else "RLIMIT_FSIZE"

    @contextmanager
    def full(self, pids: Iterable[int]) -> Iterator[None]:
        """Nothing more can be written meanwhile, by any of these processes or, on a tmpfs, by anybody."""
        if self.mounted:
            filler = self.folder / "filler"
            with filler.open("wb", buffering=0) as file, suppress(OSError):
                while file.write(_CHUNK):
                    pass
            try:
                yield
            finally:
                filler.unlink()
            return
        before = {pid: resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, -1)) for pid in pids}
        try:
            yield
        finally:
            for pid, limits in before.items():
                with suppress(ProcessLookupError):
                    resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)


@contextmanager
def small_disk(folder: Path) -> Iterator[Disk]:
    """A disk at folder, while the context lasts."""
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={_SIZE_MIB}m", "tmpfs", str(folder)], capture_output=True, check=False,
    )
    mounted = done.returncode == 0
    try:
        yield Disk(folder, mounted)
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)
