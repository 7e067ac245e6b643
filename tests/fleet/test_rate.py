"""Detection's stable subset follows a recorded day's calls, as Prometheus has them, up and back.

KEDA, Kubernetes' autoscaler and Prometheus are real. What Prometheus scrapes counts calls as detection does, as many
as the trace has then. Every duration of our ScaledObject and its query is divided by the pace.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from prometheus_client import start_http_server
from tests.cluster import prometheus as prometheuses
from tests.contract.harness import free_port

from facetmesh.kit.telemetry import Metrics

from . import report
from .fleet import DEADLINE_S, LONG, NAMESPACE, is_ready
from .keda import keda
from .load import TRACE, busy_evening
from .replay import LOOK_S, STEP_S, Seen, hasten, is_watched

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .fleet import Fleet

pytestmark = [pytest.mark.full, pytest.mark.skipif(not LONG, reason="KEDA takes long to build: make test-fleet")]
STABLE = "detection-v1"
DETECT = "facetmesh.detection.v1.DetectionService/Detect"
CALLS_PER_REQUEST = 1.5
"""Calls a second for each request in five minutes of the trace: 170 on average."""
MANY = 4
"""Replicas that the load surely asks for, at forty calls a second each, on a fast machine too."""


@pytest.mark.skipif(not TRACE.exists(), reason=f"there is no trace: {TRACE}, or where FACETMESH_TRACE says")
async def test_the_stable_subset_follows_a_days_calls_without_flapping(fleet: Fleet) -> None:
    await asyncio.to_thread(fleet.use, "spot")
    window_s = await asyncio.to_thread(hasten, fleet, STABLE)
    spec = fleet.cluster.get("scaledobject", STABLE, f"--namespace={NAMESPACE}")["spec"]
    (address,) = {urlsplit(one["metadata"]["serverAddress"]).netloc for one in spec["triggers"]}
    metrics = Metrics.create()
    with _scraped(fleet, metrics) as port:
        async with keda(fleet, {address: port}):
            await asyncio.to_thread(fleet.until, lambda: is_watched(fleet, STABLE), "KEDA watches detection")
            least, most = spec["minReplicaCount"], spec["maxReplicaCount"]
            # Whatever it had before: without calls it comes down first.
            await asyncio.to_thread(fleet.until, lambda: _replicas(fleet)[0] == least, f"{STABLE} has its {least}")
            seen = await _replay(fleet, metrics, least, window_s)
    report.add("detection", {
        "what": f"{least} to {seen.most()} to {least}, by calls a second", "long": LONG,
        "seconds": round(seen.samples[-1][1], 1), "most": seen.most(), "turns": seen.turns(), "lines": seen.lines,
    })  # fmt: skip
    assert MANY <= seen.most() <= most, seen.changes()
    seen.check(window_s)


@contextlib.contextmanager
def _scraped(fleet: Fleet, metrics: Metrics) -> Iterator[int]:
    """A Prometheus scrapes these metrics as those of the stable subset. Yields its port."""
    metrics.calls.labels(DETECT, "OK").inc(0)
    port = free_port()
    server, thread = start_http_server(port, "127.0.0.1", metrics.registry)
    try:
        prometheus = prometheuses.start(fleet.cluster)
        prometheus.scrape({f"127.0.0.1:{port}": {"app": "detection", "subset": "v1"}})
        fleet.until(lambda: prometheus.query("rate(facetmesh_calls_total[1m])"), "calls are known")
        yield prometheus.port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


async def _replay(fleet: Fleet, metrics: Metrics, least: int, window_s: float) -> Seen:
    """Goes through the trace until there are no more replicas than at the beginning."""
    seen, requests = Seen(), busy_evening()
    counter = metrics.calls.labels(DETECT, "OK")
    looked, now_s = seen.began, 0.0
    ends = seen.began + len(requests) * STEP_S + 10 * window_s + DEADLINE_S
    while True:
        asked = time.monotonic()
        assert asked < ends, f"replicas have not gone: {seen.changes()}\n{fleet.cluster.logs()}"
        wanted, ready = await asyncio.to_thread(_replicas, fleet)
        step = int(now_s / STEP_S)
        rate = requests[step] * CALLS_PER_REQUEST if step < len(requests) else 0.0
        counter.inc(rate * (asked - looked))
        # Where looking takes long, the day goes slower, as everything does there.
        now_s += min(asked - looked, 2 * STEP_S)
        looked = asked
        seen.add(asked, wanted=wanted, ready=ready, forties_of_calls=rate / 40)
        if step >= len(requests) and wanted == least:
            return seen
        await asyncio.sleep(LOOK_S)


def _replicas(fleet: Fleet) -> tuple[int, int]:
    """How many are wanted, and how many are ready."""
    return fleet.deployment(STABLE)["spec"]["replicas"], sum(map(is_ready, fleet.pods(app="detection", version="v1")))
