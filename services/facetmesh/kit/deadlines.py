"""Until when the caller of the current RPC waits, for those who would rather refuse than be late."""

from __future__ import annotations

import math
import time
from contextvars import ContextVar

_current: ContextVar[float] = ContextVar("deadline", default=math.inf)


def set_current(seconds_left: float | None) -> None:
    """Says how long the caller waits from now, in seconds, for the rest of this task; None for ever."""
    _current.set(math.inf if seconds_left is None else time.monotonic() + seconds_left)


def seconds_left() -> float:
    """How long the caller still waits, in seconds; infinity where it set no deadline."""
    return _current.get() - time.monotonic()
