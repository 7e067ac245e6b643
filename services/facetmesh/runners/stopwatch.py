"""How long the parts of a task take, without the tasks having to say so: decoders and engines do."""

from __future__ import annotations

import time
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_times_ms: ContextVar[dict[str, float] | None] = ContextVar("times_ms", default=None)


@contextmanager
def measured() -> Iterator[dict[str, float]]:
    """Gathers the parts of what is done within, in milliseconds by name; on leaving also `post`, the rest of it."""
    times: dict[str, float] = {}
    token = _times_ms.set(times)
    began = time.perf_counter()
    try:
        yield times
    finally:
        _times_ms.reset(token)
        times["post"] = max(0.0, (time.perf_counter() - began) * 1000 - sum(times.values()))


@contextmanager
def part(name: str) -> Iterator[None]:
    """What is done within is a part of the task, of this name; it adds up."""
    began = time.perf_counter()
    try:
        yield
    finally:
        times = _times_ms.get()
        if times is not None:
            times[name] = times.get(name, 0.0) + (time.perf_counter() - began) * 1000
