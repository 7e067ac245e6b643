"""A step's calls out of counters that only grow, and those counters."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry
from tests.unit.rollout_world import NAME

from facetmesh.detection.detector import Classification, Detection, Result
from facetmesh.detection.metrics import VersionMetrics
from facetmesh.detection.rollout.counted import Counted
from facetmesh.detection.rollout.record import Rollout
from facetmesh.detection.rollout.samples import Sample, Samples, bucket
from facetmesh.detection.rollout.sequential import Tally
from facetmesh.detection.scheduler import Served
from facetmesh.detection.statistics import Statistics
from facetmesh.detection.versions import Facts, Version
from facetmesh.kit.errors import Unavailable
from facetmesh.runners.tasks import Reply

if TYPE_CHECKING:
    from collections.abc import Mapping

ROLLOUT = Rollout(NAME, stable=1, candidate=2, since_s=10.0)
CANDIDATE = Version("acme", "faces", 2, "a" * 64, 10, "MIT", Facts(("cat", "dog"), "detect", 64, 64), 5.0)


def calls(number: int) -> Samples:
    return Samples(candidate=Sample(errors=Tally(number, number / 10)))


class Replicas:
    """What each says."""

    def __init__(self) -> None:
        self.say: Mapping[str, Samples] = {}
        self.counted = Counted(self._read)

    async def _read(self, rollout: Rollout) -> Mapping[str, Samples]:
        assert rollout.name == NAME
        return self.say

    async def candidate(self, rollout: Rollout = ROLLOUT, **say: int) -> int:
        """How many calls of the candidate are known, after a look."""
        self.say = {replica: calls(number) for replica, number in say.items()}
        return (await self.counted.samples(rollout)).candidate.calls


async def test_what_was_before_the_rollout_does_not_count() -> None:
    replicas = Replicas()
    assert await replicas.candidate(a=1000) == 0
    assert await replicas.candidate(a=1010) == 10
    assert await replicas.candidate(a=1015) == 15


async def test_a_step_begins_with_what_came_since_the_last_look() -> None:
    replicas = Replicas()
    await replicas.candidate(a=1000)
    await replicas.candidate(a=1010)
    assert await replicas.candidate(replace(ROLLOUT, since_s=20.0), a=1013) == 3


async def test_replicas_come_begin_anew_and_go() -> None:
    replicas = Replicas()
    await replicas.candidate(a=1000, b=500)
    assert await replicas.candidate(a=1010, b=501, c=7) == 18
    assert await replicas.candidate(a=4, b=501, c=7) == 22  # a is another process now
    assert await replicas.candidate(b=502) == 23
    assert await replicas.candidate(a=6, b=502, c=8) == 26


async def test_metrics_that_are_away_take_nothing_along() -> None:
    replicas = Replicas()
    await replicas.candidate(a=1000)
    said = replicas.counted._read

    async def away(_: Rollout) -> Mapping[str, Samples]:
        raise Unavailable("Prometheus is away.")

    replicas.counted._read = away
    with pytest.raises(Unavailable):
        await replicas.candidate(a=1)
    replicas.counted._read = said
    assert await replicas.candidate(a=1020) == 20


def found(*boxes: tuple[int, float]) -> Result:
    return Result(tuple(Detection((0, 0, 1, 1), "", class_id, score) for class_id, score in boxes), 64, 64)


@pytest.fixture
def statistics() -> Statistics:
    """Three calls of the candidate: one failed, one found nothing, one a cat and a dog."""
    statistics = Statistics()
    for seconds, ok in ((0.02, True), (0.02, True), (70.0, False)):
        statistics.ended(CANDIDATE, seconds, ok=ok)
    statistics.found(CANDIDATE, found())
    statistics.found(CANDIDATE, found((0, 1.0), (1, 0.55)))
    statistics.compared(CANDIDATE, 0.5)
    for cold in (True, False):
        statistics.cost(
            Served("acme", "detect", "models/faces/versions/2", queue_s=0, run_s=0.01, compute_s=0.02, cold=cold,
                   reply=Reply(timings_ms={"decode": 1, "infer": 5, "post": 2}, batch=2), error=None)
        )  # fmt: skip
    return statistics


async def test_what_a_version_did_is_counted(statistics: Statistics) -> None:
    sample = (await statistics.read(ROLLOUT))[""].candidate
    assert (sample.errors, sample.agreement) == (Tally(3, 1), Tally(1, 0.5))
    assert (sample.empty, sample.classes, sample.scores[5], sample.scores[9]) == (1, (1, 1), 1, 1)
    assert (sample.latency.counts[bucket(0.02)], sample.latency.counts[-1]) == (2, 1)
    assert (sum(sample.compute.counts), sample.compute.counts[bucket(0.02)]) == (1, 1)
    assert (await statistics.read(ROLLOUT))[""].stable == Sample()


def test_whole_images_have_one_class() -> None:
    statistics = Statistics()
    classes = (Classification("dog", 1, 0.9), Classification("cat", 0, 0.1))
    statistics.found(CANDIDATE, Result((), 64, 64, classes))
    assert statistics.of(CANDIDATE.name).classes == [0, 1]


def test_prometheus_reads_the_same(statistics: Statistics) -> None:
    registry = CollectorRegistry()
    registry.register(VersionMetrics(statistics))
    labels = {"tenant": "acme", "model": "faces", "version": "2"}

    def value(name: str, **more: str) -> float | None:
        return registry.get_sample_value(f"facetmesh_version_{name}", {**labels, **more})

    assert value("latency_seconds_bucket", le="+Inf") == 3
    assert value("latency_seconds_bucket", le="0.0226274") == 2
    assert value("call_compute_seconds_bucket", le="+Inf") == 1
    assert (value("scores_total", score="0.9"), value("classes_total", class_id="1"), value("empty_total")) == (1, 1, 1)
