"""What became of each version's calls, since the process began."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from facetmesh.detection.rollout.samples import BOUNDS_S, SCORE_BINS, Histogram, Sample, Samples, bucket
from facetmesh.detection.rollout.sequential import Tally as Total
from facetmesh.detection.stages import ANSWERING, STAGES, stages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from facetmesh.detection.detector import Result
    from facetmesh.detection.rollout.record import Rollout
    from facetmesh.detection.scheduler import Served
    from facetmesh.detection.versions import Version

_KEPT = 4096


@dataclass(slots=True)
class Tally:
    """Of one version."""

    succeeded: int = 0
    succeeded_s: float = 0.0
    """How long those took together."""
    failed: int = 0
    failed_s: float = 0.0
    """How long those took together."""
    ran: int = 0
    """Calls that its process ended, whether their callers still waited or not."""
    stages_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    """How long the stages of those took together."""
    engine_runs: float = 0.0
    """Runs of the engine for those; several may share one."""
    compared: int = 0
    """Copies of calls that it answered in the shadow of another version."""
    agreement: float = 0.0
    """How much those agreed with the answers, summed up; each from 0 to 1."""
    last_s: float = 0.0
    """When the last call ended, in seconds since the epoch."""
    latency: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))
    """Calls by how long they took, in the buckets of `rollout.samples`."""
    compute: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))
    """Calls by the core-seconds that they cost, in the same buckets; without those that had to load the model."""
    scores: list[int] = field(default_factory=lambda: [0] * SCORE_BINS)
    """Objects by their score, in equal parts from 0 to 1."""
    classes: list[int] = field(default_factory=list)
    """Objects by their class id."""
    empty: int = 0
    """Calls that found none."""

    def sample(self) -> Sample:
        """What a rollout's gates look at."""
        return Sample(
            Total(self.succeeded + self.failed, self.failed), Histogram(tuple(self.latency)),
            Histogram(tuple(self.compute)), Total(self.compared, self.agreement), tuple(self.scores),
            tuple(self.classes), self.empty,
        )  # fmt: skip


class Statistics:
    """Counts.

    Args:
        clock: Seconds since the epoch.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._tallies: OrderedDict[str, Tally] = OrderedDict()

    def ended(self, version: Version, seconds: float, *, ok: bool) -> None:
        """Counts a call that ended."""
        tally = self._tally(version.name)
        tally.last_s = self._clock()
        tally.latency[bucket(seconds)] += 1
        if ok:
            tally.succeeded += 1
            tally.succeeded_s += seconds
        else:
            tally.failed += 1
            tally.failed_s += seconds

    def found(self, version: Version, result: Result) -> None:
        """Counts what a call found: its objects, or the most likely class of the whole image."""
        tally = self._tally(version.name)
        objects = result.classifications[:1] or result.detections
        tally.empty += not objects
        for one in objects:
            tally.scores[min(int(one.confidence * SCORE_BINS), SCORE_BINS - 1)] += 1
            tally.classes += [0] * (one.class_id + 1 - len(tally.classes))
            tally.classes[one.class_id] += 1

    def cost(self, served: Served) -> None:
        """Counts where a version's call spent its time, and what it cost, unless it had to load the model."""
        if served.reply is None or served.task not in ANSWERING:
            return
        tally = self._tally(f"tenants/{served.tenant_id}/{served.subject}")
        tally.ran += 1
        tally.engine_runs += 1 / served.reply.batch
        for stage, seconds in stages(served).items():
            tally.stages_s[stage] += seconds
        if not served.cold:
            tally.compute[bucket(served.compute_s)] += 1

    def compared(self, version: Version, agreement: float) -> None:
        """Counts a copy of a call, and how much it agreed with the answer."""
        tally = self._tally(version.name)
        tally.compared += 1
        tally.agreement += agreement

    def of(self, version_name: str) -> Tally:
        """What became of the calls of a version, by its resource name."""
        return self._tallies.get(version_name, Tally())

    async def read(self, rollout: Rollout) -> dict[str, Samples]:
        """What became of the calls of both versions of a rollout, in this one replica."""
        model, _, _ = rollout.name.partition("/rollouts/")
        stable, candidate = (
            self.of(f"{model}/versions/{number}").sample() for number in (rollout.stable, rollout.candidate)
        )
        return {"": Samples(stable, candidate)}

    def all(self) -> Iterator[tuple[str, Tally]]:
        """Each version's resource name and tally."""
        yield from list(self._tallies.items())

    def _tally(self, name: str) -> Tally:
        tally = self._tallies.setdefault(name, Tally())
        self._tallies.move_to_end(name)
        if len(self._tallies) > _KEPT:
            self._tallies.popitem(last=False)
        return tally
