"""Where the time of requests goes, as Prometheus reads it: sums by tenant, model and version, percentiles by stage."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.metrics_core import Metric

    from facetmesh.detection.scheduler import Scheduler, Served
    from facetmesh.runners.pool import RunnerPool

STAGES = ("queue", "load", "decode", "infer", "post", "overhead")
"""Waiting for a slot; loading what was not there, decoding, the engine and the rest of the work; and the way to the
process and back."""
ANSWERING = frozenset({"detect", "infer"})
"""The tasks that answer a call; others load models and let go of them."""
_LABELS = ("tenant", "model", "version")
_KEPT = 4096
_BATCHES = (1, 2, 4, 8, 16, 32, 64)
_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class StageMetrics(Collector):
    """Counts what the scheduler tells, and reads the rest when it is asked.

    Labels are bounded: of more than 4,096 versions those go that were least
    recently used, and a model's process cannot name stages.

    Args:
        pool: The runners, for their memory.
    """

    def __init__(self, pool: RunnerPool) -> None:
        self._pool = pool
        self._scheduler: Scheduler | None = None
        self._sums: OrderedDict[tuple[str, str], dict[str, float]] = OrderedDict()
        # Not registered: it is collected as a part of this.
        self._seconds = Histogram(
            "facetmesh_stage_seconds", "How long the stages of requests took.", ["stage"], buckets=_BUCKETS_S,
            registry=CollectorRegistry(),
        )  # fmt: skip
        self._batches = Histogram(
            "facetmesh_batch_size", "With how many others a request ran, itself among them.", buckets=_BATCHES,
            registry=CollectorRegistry(),
        )  # fmt: skip
        self._stages = {stage: self._seconds.labels(stage) for stage in STAGES}

    def watch(self, scheduler: Scheduler) -> None:
        """Reads this scheduler's queue."""
        self._scheduler = scheduler

    def add(self, served: Served) -> None:
        """Counts a request that ran."""
        key = (served.tenant_id, served.subject)
        sums = self._sums.setdefault(key, dict.fromkeys((*STAGES, "compute", "cold", "runs"), 0.0))
        self._sums.move_to_end(key)
        if len(self._sums) > _KEPT:
            self._sums.popitem(last=False)
        sums["compute"] += served.compute_s
        sums["cold"] += served.cold
        if served.reply is not None:
            sums["runs"] += 1 / served.reply.batch
            self._batches.observe(served.reply.batch)
        for stage, seconds in stages(served).items():
            sums[stage] += seconds
            if seconds or stage != "load":  # few do
                self._stages[stage].observe(seconds)

    def collect(self) -> Iterator[Metric]:
        """The metrics."""
        yield from self._seconds.collect()
        yield from self._batches.collect()
        seconds = CounterMetricFamily(
            "facetmesh_version_stage_seconds", "How long the stages took together.", labels=(*_LABELS, "stage")
        )
        compute = CounterMetricFamily(
            "facetmesh_version_compute_seconds", "Core-seconds that were charged.", labels=_LABELS
        )
        loads = CounterMetricFamily("facetmesh_version_loads", "Requests that had to load a model.", labels=_LABELS)
        runs = CounterMetricFamily(
            "facetmesh_version_engine_runs", "Runs of the engine; several requests may share one.", labels=_LABELS
        )
        for (tenant, subject), sums in list(self._sums.items()):
            labels = (tenant, *_model(subject))
            for stage in STAGES:
                seconds.add_metric((*labels, stage), sums[stage])
            compute.add_metric(labels, sums["compute"])
            loads.add_metric(labels, sums["cold"])
            runs.add_metric(labels, sums["runs"])
        yield from (seconds, compute, loads, runs)
        memory = GaugeMetricFamily(
            "facetmesh_runner_memory_bytes", "What a tenant's runner takes (PSS).", labels=["tenant"]
        )
        for tenant, size in self._pool.memory().items():
            memory.add_metric([tenant], size)
        cards = GaugeMetricFamily(
            "facetmesh_runner_gpu_memory_bytes", "What a tenant's runner takes of cards' memory.", labels=["tenant"]
        )
        for tenant, size in self._pool.gpu_memory().items():
            cards.add_metric([tenant], size)
        evictions = CounterMetricFamily("facetmesh_runner_evictions", "Runners that made room.", self._pool.evicted)
        quarantined = GaugeMetricFamily(
            "facetmesh_models_quarantined", "A tenant's models that are not run for a while.", labels=["tenant"]
        )
        for tenant, models in self._pool.in_quarantine().items():
            quarantined.add_metric([tenant], models)
        yield from (memory, cards, evictions, quarantined)
        if self._scheduler is not None:
            yield GaugeMetricFamily("facetmesh_scheduler_waiting", "Requests that wait.", self._scheduler.waiting())
            yield GaugeMetricFamily("facetmesh_scheduler_running", "Requests that run.", self._scheduler.running())


def stages(served: Served) -> dict[str, float]:
    """How long each stage of a request took, in seconds: what the process says, within what was seen from outside."""
    found = {"queue": served.queue_s}
    left = served.run_s
    for stage in STAGES[1:-1]:
        said = served.reply.timings_ms.get(stage, 0.0) / 1000 if served.reply is not None else 0.0
        found[stage] = min(said, left)
        left -= found[stage]
    return {**found, "overhead": left}


def _model(subject: str) -> tuple[str, str]:
    """Model and version out of models/{model}/versions/{version}; what is no version is other."""
    match subject.split("/"):
        case ["models", model, "versions", version]:
            return model, version
    return "other", ""
