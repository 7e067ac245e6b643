"""Where the time went, and that nobody can make the metrics grow without end."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest

from facetmesh.detection.scheduler import Served
from facetmesh.detection.stages import StageMetrics, stages
from facetmesh.runners.tasks import Reply


@dataclass
class Pool:
    """Runners that take memory."""

    evicted: int = 3
    taken: dict[str, int] = field(default_factory=lambda: {"acme": 5})

    def memory(self) -> dict[str, int]:
        """By tenant."""
        return self.taken

    def gpu_memory(self) -> dict[str, int]:
        """By tenant."""
        return {"acme": 7}

    def in_quarantine(self) -> dict[str, int]:
        """By tenant."""
        return {"acme": 2}


def served(subject: str = "models/faces/versions/2", **timings_ms: float) -> Served:
    """A request that waited 10 ms and ran for 20 ms."""
    return Served(
        "acme", "detect", subject, queue_s=0.01, run_s=0.02, compute_s=0.04, cold=True,
        reply=Reply(timings_ms=timings_ms), error=None,
    )  # fmt: skip


def values(metrics: StageMetrics) -> dict[tuple[str, ...], float]:
    """The samples, by name and labels."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for metric in metrics.collect()
        for sample in metric.samples
    }


def test_what_the_process_does_not_say_is_overhead() -> None:
    """The parts make up the whole."""
    found = stages(served(load=2, decode=3, infer=10, post=1))
    parts = {"queue": 0.01, "load": 0.002, "decode": 0.003, "infer": 0.01, "post": 0.001, "overhead": 0.004}
    assert found == pytest.approx(parts)


def test_a_process_that_lies_stays_within_what_was_seen() -> None:
    """It cannot have worked for longer than it was waited for."""
    found = stages(served(decode=5, infer=1e9, post=1))
    assert sum(found.values()) == pytest.approx(0.03)


def test_sums_by_tenant_model_and_version() -> None:
    """And what the runners take."""
    metrics = StageMetrics(cast("Any", Pool()))
    metrics.add(served(decode=3, infer=12, post=1))
    metrics.add(served(decode=3, infer=12, post=1))
    found = values(metrics)
    assert found["facetmesh_version_stage_seconds_total", "acme", "faces", "2", "infer"] == pytest.approx(0.024)
    assert found["facetmesh_version_compute_seconds_total", "acme", "faces", "2"] == pytest.approx(0.08)
    assert found["facetmesh_version_loads_total", "acme", "faces", "2"] == 2
    assert found["facetmesh_runner_memory_bytes", "acme"] == 5
    assert found["facetmesh_runner_gpu_memory_bytes", "acme"] == 7
    assert found["facetmesh_runner_evictions_total",] == 3
    assert found["facetmesh_stage_seconds_count", "queue"] == 2


def test_how_many_ran_together() -> None:
    """Four requests in one run of the engine, and one alone."""
    metrics = StageMetrics(cast("Any", Pool()))
    for batch in (4, 4, 4, 4, 1):
        one = served()
        metrics.add(replace(one, reply=Reply(batch=batch)))
    metrics.add(replace(served(), reply=None))
    found = values(metrics)
    assert found["facetmesh_version_engine_runs_total", "acme", "faces", "2"] == 2
    assert (found["facetmesh_batch_size_count",], found["facetmesh_batch_size_sum",]) == (5, 17)


def test_labels_are_bounded() -> None:
    """However many versions there were, and whatever else was run."""
    metrics = StageMetrics(cast("Any", Pool()))
    for number in range(5000):
        metrics.add(served(f"models/m/versions/{number}"))
    metrics.add(served("something/else"))
    versions = {labels for labels in values(metrics) if labels[0] == "facetmesh_version_loads_total"}
    assert len(versions) == 4096
    assert ("facetmesh_version_loads_total", "acme", "other", "") in versions
