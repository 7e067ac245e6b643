"""How long the parts of a task take, and with how many others it ran: decoders and engines say so, tasks need not."""

from __future__ import annotations

import time
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(slots=True)
class Measured:
    """What is known of a task."""

    times_ms: dict[str, float] = field(default_factory=dict)
    """How long its parts took, in milliseconds."""
    batch: int = 1
    """How many calls the engine ran together, this one among them."""


_current: ContextVar[Measured | None] = ContextVar("measured", default=None)


@contextmanager
def measured() -> Iterator[Measured]:
    """Gathers the parts of what is done within; on leaving also `post`, the rest of it."""
    found = Measured()
    token = _current.set(found)
    began = time.perf_counter()
    try:
        yield found
    finally:
        _current.reset(token)
        found.times_ms["post"] = max(0.0, (time.perf_counter() - began) * 1000 - sum(found.times_ms.values()))


@contextmanager
def part(name: str) -> Iterator[None]:
    """What is done within is a part of the task, of this name, but for parts within it; it adds up."""
    found = _current.get()
    if found is None:
        yield
        return
    before_ms = sum(found.times_ms.values())
    began = time.perf_counter()
    try:
        yield
    finally:
        within_ms = sum(found.times_ms.values()) - before_ms
        own_ms = (time.perf_counter() - began) * 1000 - within_ms
        found.times_ms[name] = found.times_ms.get(name, 0.0) + max(0.0, own_ms)


def ran_together(calls: int) -> None:
    """The task was one of so many that the engine ran together."""
    found = _current.get()
    if found is not None:
        found.batch = calls
