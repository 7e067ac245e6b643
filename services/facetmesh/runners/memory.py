"""How much memory a process really takes, and several together."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_PSS = re.compile(r"^Pss:\s+(\d+) kB$", re.MULTILINE)
_DATA = re.compile(r"^VmData:\s+(\d+) kB$", re.MULTILINE)
_RSS = re.compile(r"^VmRSS:\s+(\d+) kB$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Footprint:
    """What is taken of memory, or what is missing of it; of that it may be less than nothing."""

    ram_bytes: int = 0
    """Of the machine's."""
    gpu_bytes: int = 0
    """Of its cards'."""

    def __add__(self, other: Footprint) -> Footprint:
        """Both together."""
        return Footprint(self.ram_bytes + other.ram_bytes, self.gpu_bytes + other.gpu_bytes)

    def __sub__(self, other: Footprint) -> Footprint:
        """What is left."""
        return Footprint(self.ram_bytes - other.ram_bytes, self.gpu_bytes - other.gpu_bytes)

    def __bool__(self) -> bool:
        """Whether there is any of either."""
        return self.ram_bytes > 0 or self.gpu_bytes > 0

    def eases(self, short: Footprint) -> bool:
        """Whether less would be missing without it."""
        return min(self.ram_bytes, short.ram_bytes) > 0 or min(self.gpu_bytes, short.gpu_bytes) > 0


def resident_bytes(pid: int) -> int:
    """What a process takes of the machine's memory: its own pages, and its part of those that it shares (PSS).

    Runners share the pages of their libraries: the sum of their RSS would count
    those for each. Where the kernel does not tell the PSS it is the RSS; 0 for a
    process that is gone.
    """
    for file, pattern in (("smaps_rollup", _PSS), ("status", _RSS)):
        try:
            found = pattern.search(Path(f"/proc/{pid}/{file}").read_text())
        except OSError:
            continue
        if found:
            return int(found[1]) << 10
    return 0


def private_bytes() -> int:
    """What this process has of its own, touched or not: what RLIMIT_DATA limits."""
    found = _DATA.search(Path("/proc/self/status").read_text())
    return int(found[1]) << 10 if found else 0
