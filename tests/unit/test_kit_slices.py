"""How long a thread says that it will keep a core."""

from __future__ import annotations

import ctypes
import platform
import struct
import threading
from pathlib import Path

import pytest

from facetmesh.kit import slices
from facetmesh.runners.pool import RunnerPool

_PROGRAMS = Path(__file__).parent / "programs"
_SCHED_GETATTR = {"x86_64": 315, "aarch64": 275}
_ATTRIBUTES = "=IIQiIQQQ"


def _attributes(pid: int = 0) -> tuple[int, ...]:
    """Policy, flags, nice, real-time priority and slice of a thread; of this one when 0."""
    buffer = ctypes.create_string_buffer(struct.calcsize(_ATTRIBUTES))
    number = _SCHED_GETATTR.get(platform.machine())
    if number is None or ctypes.CDLL(None).syscall(number, pid, buffer, len(buffer), 0):
        pytest.skip("this kernel does not say")
    attributes = struct.unpack(_ATTRIBUTES, buffer)[1:6]
    if not attributes[-1]:
        pytest.skip("this kernel has no slices to ask for")
    return attributes


def test_threads_inherit_it_and_nothing_else_changes() -> None:
    before, seen = _attributes(), []

    def asked() -> None:
        slices.ask(slices.SHORT)
        child = threading.Thread(target=lambda: seen.append(_attributes()))
        child.start()
        child.join()
        slices.ask(slices.USUAL)
        seen.append(_attributes())

    thread = threading.Thread(target=asked)
    thread.start()
    thread.join()
    assert seen == [(*before[:-1], slices.SHORT), before]


async def test_a_runner_does_not_go_first_as_its_service_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(_PROGRAMS)
    usual = _attributes()[-1]
    slices.ask(slices.SHORT)
    try:
        async with RunnerPool("unruly") as pool:
            await pool.call(domain="acme", task="environment")
            assert _attributes(pool.pids()["acme"])[-1] == usual
    finally:
        slices.ask(slices.USUAL)
