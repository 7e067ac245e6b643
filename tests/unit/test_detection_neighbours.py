"""Bad neighbours, on real processes: the scheduler over the pool, as detection has them."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from facetmesh.detection.scheduler import Scheduler, SchedulerLimits
from facetmesh.kit import errors
from facetmesh.runners.pool import RunnerPool
from facetmesh.runners.settings import PoolLimits, RunnerLimits

from .runner_processes import runner_processes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PROGRAMS = Path(__file__).parent / "programs"
PATIENCE_S = 60.0
CALLS = 40


@pytest.fixture(autouse=True)
def _programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PROGRAMS))


@contextlib.asynccontextmanager
async def detection(limits: PoolLimits, pinned: str = "") -> AsyncIterator[tuple[Scheduler, RunnerPool]]:
    """A scheduler of two slots over a pool."""
    async with RunnerPool("unruly", limits=limits, pinned=lambda name: name == pinned) as pool:
        scheduler = Scheduler(pool, SchedulerLimits(2, queue=16))
        yield scheduler, pool
        scheduler.close()


async def call(scheduler: Scheduler, tenant: str, task: str = "echo", **arguments: object) -> int:
    """The process that answered."""
    reply = await scheduler.call(
        domain=tenant, task=task, arguments=arguments, blobs=[b"x" * 100_000], subject="models/m",
        timeout_s=PATIENCE_S,
    )  # fmt: skip
    return int(reply.values["pid"])


async def test_a_flood_of_crashes_costs_the_neighbour_no_answer() -> None:
    """One tenant floods with what kills its runner, until it is quarantined; the other's process lives on."""
    async with detection(PoolLimits(runner=RunnerLimits(concurrency=2))) as (scheduler, _):
        mine = await call(scheduler, "good")
        refused: set[str] = set()

        async def flood() -> None:
            while True:
                try:
                    await call(scheduler, "bad", "die", signal="SIGSEGV")
                except errors.FacetmeshError as error:
                    refused.add(error.reason)
                await asyncio.sleep(0)

        floods = [asyncio.create_task(flood()) for _ in range(24)]
        try:
            async with asyncio.timeout(PATIENCE_S):
                answered = [await call(scheduler, "good") for _ in range(CALLS)]
                while "MODEL_QUARANTINED" not in refused:
                    await asyncio.sleep(0.05)
        finally:
            for task in floods:
                task.cancel()
            await asyncio.gather(*floods, return_exceptions=True)
        assert answered == [mine] * CALLS
        assert {"RUNNER_DIED", "QUEUE_FULL", "MODEL_QUARANTINED"} >= refused > {"RUNNER_DIED"}


@pytest.mark.full
async def test_sixty_models_on_memory_for_ten() -> None:
    """Each is loaded in its turn and makes room again; the pinned tenant's process is never touched."""
    budget, size = 10 * (64 << 20), 40 << 20
    limits = PoolLimits(runners=64, memory_bytes=budget, runner=RunnerLimits(concurrency=2))
    async with detection(limits, pinned="vip") as (scheduler, pool):
        mine = await call(scheduler, "vip", "keep", bytes=size)
        stop = asyncio.Event()
        answered: list[int] = []

        async def steady() -> None:
            while not stop.is_set():
                answered.append(await call(scheduler, "vip"))
                await asyncio.sleep(0.01)

        watching = asyncio.create_task(steady())
        most = 0
        for number in range(60):
            await call(scheduler, f"t{number}", "keep", bytes=size)
            most = max(most, sum(pool.memory().values()))
        stop.set()
        await watching
        assert set(answered) == {mine}
        assert len(answered) >= 60
        assert most <= budget
        assert pool.evicted >= 45
        assert len(runner_processes()) <= 16
