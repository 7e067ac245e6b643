"""Bad neighbours, on real processes: the scheduler over the pool, as detection has them."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import random
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from facetmesh.detection.detector import Image, Options, arguments
from facetmesh.detection.scheduler import Scheduler, SchedulerLimits
from facetmesh.kit import errors
from facetmesh.runners.images import encode_png
from facetmesh.runners.pool import RunnerPool
from facetmesh.runners.settings import PoolLimits, RunnerLimits

from . import onnx_models

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PROGRAMS = Path(__file__).parent / "programs"
PATIENCE_S = 90.0
CALLS = 40


@pytest.fixture(autouse=True)
def _programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PROGRAMS))


@contextlib.asynccontextmanager
async def detection(limits: PoolLimits) -> AsyncIterator[tuple[Scheduler, RunnerPool]]:
    """A scheduler of two slots over a pool."""
    async with RunnerPool("unruly", limits=limits) as pool:
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


TENANTS = [f"t{number}" for number in range(12)]
OF_EACH = 5
FIT = 2


@pytest.mark.full
async def test_sixty_models_on_memory_for_ten(tmp_path: Path) -> None:
    """Real ones, of twelve tenants: each gets its answers, and the pinned tenant's process is never touched."""
    files = [_model(tmp_path, number) for number in range(len(TENANTS) * OF_EACH)]

    async def ask(scheduler: Scheduler, number: int, tenant: str = "") -> None:
        reply = await scheduler.call(
            domain=tenant or TENANTS[number // OF_EACH], task="detect", arguments=files[number], blobs=[PICTURE],
            subject=f"models/m{number % OF_EACH}", timeout_s=PATIENCE_S,
        )  # fmt: skip
        assert [found["class_id"] for found in reply.values["detections"]] == [number % 2]

    async with _program(PoolLimits(runners=64)) as (scheduler, pool):
        await ask(scheduler, 0, "vip")
        for number in range(FIT * OF_EACH):
            await ask(scheduler, number)
        budget = round(1.3 * sum(pool.memory().values()))  # engines make better plans later, which take more
    async with _program(PoolLimits(runners=64, memory_bytes=budget)) as (scheduler, pool):
        await ask(scheduler, 0, "vip")
        mine = pool.pids()["vip"]
        stop, answered, seen = asyncio.Event(), 0, 0

        async def steady() -> None:
            nonlocal answered
            while not stop.is_set():
                await ask(scheduler, 0, "vip")
                answered += 1
                await asyncio.sleep(0.05)

        watching = asyncio.create_task(steady())
        chance = random.Random(6)  # noqa: S311 - a test that can be repeated
        skewed = chance.choices(range(len(files)), [1 / (1 + rank) for rank in range(len(files))], k=20)
        for number in [*range(len(files)), *skewed]:
            await ask(scheduler, number)
            memory = pool.memory()
            assert sum(memory.values()) <= budget
            seen = max(seen, len(memory))
        stop.set()
        await watching
        assert pool.pids()["vip"] == mine
        assert answered >= len(TENANTS)
        assert seen >= 1 + FIT
        assert pool.evicted >= len(TENANTS) - 2 * FIT
        assert pool.evicted < len(files) + len(skewed), "nobody was found resident"


PICTURE = encode_png(np.zeros((48, 64, 3), np.uint8))


@contextlib.asynccontextmanager
async def _program(limits: PoolLimits) -> AsyncIterator[tuple[Scheduler, RunnerPool]]:
    """Detection's own program, as `detection` has the unruly one."""
    limits = dataclasses.replace(limits, runner=RunnerLimits(concurrency=2, start_timeout_s=PATIENCE_S))
    async with RunnerPool("facetmesh.detection.program", limits=limits, pinned=lambda name: name == "vip") as pool:
        scheduler = Scheduler(pool, SchedulerLimits(2, queue=16, run_s=PATIENCE_S))
        yield scheduler, pool
        scheduler.close()


def _model(folder: Path, number: int) -> dict[str, object]:
    """A model that sees one object of the class `number` modulo 2, as arguments of the task `detect`."""
    path = folder / f"{number}.onnx"
    path.write_bytes(onnx_models.detector((32, 32, 20, 10 + number % 8, number % 2, 0.5 + number / 200)))
    return {
        "path": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "hints": {},
        **arguments(Image(PICTURE), Options()),
    }  # fmt: skip
