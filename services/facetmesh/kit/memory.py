"""Memory that large requests took goes back to the system: the allocator keeps what lies between what is still used."""

from __future__ import annotations

import asyncio
import ctypes
import os
from pathlib import Path

_EVERY_S = 5.0
_MUCH_BYTES = 256 << 20
"""More than the least that was taken since: it takes 50 ms to give 600 MB back."""


async def give_back() -> None:
    """Gives memory back from time to time, where there is much; never ends."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc
    least = resident_bytes()
    while trim is not None:
        await asyncio.sleep(_EVERY_S)
        if resident_bytes() - least > _MUCH_BYTES:
            await asyncio.to_thread(trim, 0)
        least = min(least, resident_bytes())


def resident_bytes() -> int:
    """What this process takes of the machine's memory."""
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
