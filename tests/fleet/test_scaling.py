"""Fusion's workers follow a recorded day's load from none to many and back.

KEDA, Kubernetes' autoscaler and the scheduler are real, and so is what KEDA asks: fusion's external scaler. The
queue that it tells of is filled as the trace says and emptied by as many pods as are ready. Every duration of our
ScaledObject is divided by the pace.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

import pytest

from facetmesh.fusion.backlog import Backlog
from facetmesh.fusion.operations import Ref
from facetmesh.fusion.scaler_servicer import scaling
from facetmesh.kit.tls import TlsFiles, listen

from . import report
from .fleet import DEADLINE_S, LONG, PACE, is_ready
from .keda import keda
from .load import TRACE, Queue, busy_evening
from .replay import LOOK_S, STEP_S, Seen, hasten, is_watched

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from .fleet import Fleet

pytestmark = [pytest.mark.full, pytest.mark.skipif(not LONG, reason="KEDA takes long to build: make test-fleet")]
SCALER = "fusion.facetmesh:7453"
WORKERS = "fusion-worker"
WARM = 2
"""Pods that take calls and work too."""
MANY = 4
"""Workers that the load surely asks for."""


@pytest.mark.skipif(not TRACE.exists(), reason=f"there is no trace: {TRACE}, or where FACETMESH_TRACE says")
async def test_workers_follow_a_day_from_none_to_many_and_back(fleet: Fleet) -> None:
    await asyncio.to_thread(fleet.use, "spot")
    window_s = await asyncio.to_thread(hasten, fleet, WORKERS)
    backlog = Backlog(time.time)
    queue = Queue(busy_evening(), STEP_S, jobs_per_request=0.125, job_s=5 / PACE)
    async with (
        scaling(backlog, lambda server: listen(server, "127.0.0.1", 0, TlsFiles())) as port,
        _seeing(backlog, queue),
        keda(fleet, {SCALER: port}),
    ):
        await asyncio.to_thread(fleet.until, lambda: is_watched(fleet, WORKERS), "KEDA watches the workers")
        seen = await _replay(fleet, queue, window_s)
    report.add("workers", {
        "what": f"none to {seen.most()} to none, for {len(queue.requests)} steps of {STEP_S:g} s", "long": LONG,
        "seconds": round(seen.samples[-1][1], 1), "most": seen.most(), "turns": seen.turns(), "lines": seen.lines,
    })  # fmt: skip
    assert seen.most() >= MANY, seen.changes()
    seen.check(window_s)


async def _replay(fleet: Fleet, queue: Queue, window_s: float) -> Seen:
    """Goes through the trace until nobody works any more."""
    seen = Seen()
    looked = seen.began
    ends = seen.began + len(queue.requests) * STEP_S + 3 * window_s + DEADLINE_S
    while True:
        asked = time.monotonic()
        assert asked < ends, f"workers have not gone: {seen.changes()}, {queue.jobs} jobs\n{fleet.cluster.logs()}"
        wanted, ready = await asyncio.to_thread(_workers, fleet)
        # Where looking takes long, the day goes slower, as everything does there.
        queue.advance(queue.now_s + min(asked - looked, 2 * STEP_S), WARM + ready)
        looked = asked
        seen.add(asked, wanted=wanted, ready=ready, quarter_of_jobs=queue.jobs / 4)
        if queue.is_over and queue.jobs == 0 and wanted == 0:
            return seen
        await asyncio.sleep(LOOK_S)


@contextlib.asynccontextmanager
async def _seeing(backlog: Backlog, queue: Queue) -> AsyncIterator[None]:
    """The backlog sees the queue, as fusion's dispatcher would show it, until the context ends."""
    refs = [Ref.new("acme", time.time()) for _ in range(1000)]

    async def see() -> None:
        while True:
            backlog.see(refs[: queue.jobs])
            await asyncio.sleep(0.1)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(see())
        yield
        task.cancel()


def _workers(fleet: Fleet) -> tuple[int, int]:
    """How many are wanted, and how many work."""
    wanted = fleet.deployment(WORKERS)["spec"]["replicas"]
    return wanted, sum(map(is_ready, fleet.pods(app="fusion", role="worker")))
