"""What runners take of cards' memory, by a stand-in for the driver's library: most machines have no card."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from facetmesh.kit import errors
from facetmesh.runners.gpu import CardMemory, open_nvml
from facetmesh.runners.memory import Footprint
from facetmesh.runners.pool import RunnerPool
from facetmesh.runners.settings import PoolLimits

GIB = 1 << 30


@pytest.fixture(autouse=True)
def _programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "programs"))


class NvmlError(Exception):
    """As pynvml raises it."""


class Nvml:
    """Two cards, on which processes take what the test says."""

    NVMLError = NvmlError

    def __init__(self, *cards: dict[int, int | None], driver: bool = True) -> None:
        """Has cards: what each process takes, by its id; None where it is not told."""
        self._cards = cards
        self._driver = driver

    def nvmlInit(self) -> None:
        """Fails without a driver."""
        if not self._driver:
            raise NvmlError

    def nvmlDeviceGetCount(self) -> int:
        """How many."""
        return len(self._cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        """One of them."""
        return index

    def nvmlDeviceGetComputeRunningProcesses(self, index: int) -> list[Any]:
        """Who computes on it."""
        if not self._driver:
            raise NvmlError
        return [SimpleNamespace(pid=pid, usedGpuMemory=taken) for pid, taken in self._cards[index].items()]


def test_a_process_may_be_on_several_cards() -> None:
    """What is not told counts as nothing, and so does what is not known."""
    taken = CardMemory(Nvml({1: GIB, 2: None}, {1: 2 * GIB, 3: 5}))
    assert [taken(pid) for pid in (1, 2, 3, 4)] == [3 * GIB, 0, 5, 0]
    assert CardMemory(None)(1) == 0
    assert CardMemory(Nvml({1: GIB}, driver=False))(1) == 0


@pytest.mark.parametrize(("module", "there"), [(Nvml(), True), (Nvml(driver=False), False), (None, False)])
def test_no_driver_and_no_library_are_no_error(module: Any, there: bool, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: FBT001 - pytest's
    """None makes the import fail."""
    monkeypatch.setitem(sys.modules, "pynvml", module)
    assert (open_nvml() is not None) == there


def test_what_eases_a_shortage() -> None:
    """Only memory of the kind that is short."""
    short = Footprint(gpu_bytes=1)
    assert short
    assert not Footprint(-1, 0)
    assert not Footprint(5, 0).eases(short)
    assert Footprint(5, 1).eases(short)
    assert not Footprint(5, 1).eases(Footprint(-1, 0))


async def _say(pool: RunnerPool, *domains: str) -> None:
    for domain in domains:
        await pool.call(domain=domain, task="keep", arguments={"bytes": 1, "name": domain}, subject="m", timeout_s=120)


async def test_the_cards_have_a_budget_of_their_own() -> None:
    """Each runner takes a gibibyte of a card: on a budget for two the least recently used makes room."""
    limits = PoolLimits(gpu_memory_bytes=2 * GIB)
    async with RunnerPool("unruly", limits=limits, gpu_bytes=lambda _: GIB) as pool:
        await _say(pool, "a", "b", "a", "c")
        assert pool.gpu_memory() == {"a": GIB, "c": GIB}
        assert pool.evicted == 1


async def test_who_takes_nothing_of_a_card_makes_no_room_on_it() -> None:
    """However long it was idle."""
    small: set[int] = set()

    def taken(pid: int) -> int:
        if not small:
            small.add(pid)
        return 0 if pid in small else GIB

    async with RunnerPool("unruly", limits=PoolLimits(gpu_memory_bytes=2 * GIB), gpu_bytes=taken) as pool:
        await _say(pool, "small", "a", "b", "c")
        assert pool.gpu_memory() == {"small": 0, "b": GIB, "c": GIB}


async def test_a_card_that_the_pinned_hold() -> None:
    """Who finds no room on it is told to come back."""
    limits = PoolLimits(gpu_memory_bytes=GIB)
    async with RunnerPool("unruly", limits=limits, pinned="vip".__eq__, gpu_bytes=lambda _: GIB) as pool:
        await _say(pool, "vip")
        with pytest.raises(errors.ResourceExhausted) as caught:
            await _say(pool, "a")
        assert caught.value.reason == "MEMORY_BUDGET"
        assert pool.pids().keys() == {"vip"}
