"""Memory that is given back to the system."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
from types import SimpleNamespace
from typing import TYPE_CHECKING

from facetmesh.kit import memory

if TYPE_CHECKING:
    import pytest


async def trimmed(monkeypatch: pytest.MonkeyPatch, sizes: list[int]) -> list[int]:
    """How much was taken each time that memory was given back, while the process has one size after the other."""
    seen: list[int] = []
    left = iter(sizes)
    now = 0
    done = asyncio.Event()

    def resident() -> int:
        nonlocal now
        now = next(left, -1)
        if now == -1:
            done.set()
        return now

    monkeypatch.setattr(memory, "_EVERY_S", 0)
    monkeypatch.setattr(memory, "resident_bytes", resident)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(malloc_trim=lambda _: seen.append(now)))
    task = asyncio.create_task(memory.give_back())
    await asyncio.wait_for(done.wait(), 60)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return seen


async def test_much_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    little, much = 100 << 20, 400 << 20
    assert await trimmed(monkeypatch, [little, little, little, much, little]) == [much]


async def test_nothing_is_done_without_glibc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace())
    await memory.give_back()


def test_a_process_has_a_size() -> None:
    assert memory.resident_bytes() > 1 << 20
