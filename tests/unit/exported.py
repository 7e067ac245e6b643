"""The metrics that the services export, by the names and with the labels that Prometheus sees."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from prometheus_client import CollectorRegistry

from facetmesh.audit.refused import RefusedEvents
from facetmesh.detection.gpu import GpuMetrics
from facetmesh.detection.metrics import VersionMetrics
from facetmesh.detection.scheduler import Served
from facetmesh.detection.stages import StageMetrics
from facetmesh.detection.statistics import Statistics
from facetmesh.fusion.backlog import Backlog
from facetmesh.fusion.metrics import BacklogMetrics
from facetmesh.kit.telemetry import Metrics
from facetmesh.runners.tasks import Reply

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prometheus_client.registry import Collector

_SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
TARGET_LABELS = frozenset({"app", "subset", "namespace", "pod", "container", "instance", "job"})
"""What Prometheus's operator adds to each series of a PodMonitor (k8s/observability/monitors.yaml)."""


def exported() -> Mapping[str, frozenset[str]]:
    """The labels of each series, by its name."""
    found: dict[str, frozenset[str]] = {}
    for collector in _collectors():
        for metric in collector.collect():
            labels = frozenset(_labels(collector, metric)) | TARGET_LABELS
            for suffix in _SUFFIXES[metric.type]:
                found[metric.name + suffix] = labels | {"le"} if suffix == "_bucket" else labels
    return found


def _collectors() -> Iterator[Collector]:
    """Every collector that a service's main registers."""
    yield from _of(Metrics.create().registry)
    refused = CollectorRegistry()
    RefusedEvents(refused, lambda _: None, time.monotonic)
    yield from _of(refused)
    stages = StageMetrics(cast("Any", SimpleNamespace(
        memory=lambda: {"acme": 1}, gpu_memory=lambda: {"acme": 1}, in_quarantine=lambda: {"acme": 1}, evicted=0,
    )))  # fmt: skip
    stages.watch(cast("Any", SimpleNamespace(waiting=lambda: 0, running=lambda: 0)))
    stages.add(Served(
        "acme", "detect", "models/faces/versions/1", queue_s=0, run_s=0, compute_s=0, cold=False,
        reply=Reply(timings_ms={}), error=None,
    ))  # fmt: skip
    yield stages
    statistics = Statistics(time.time)
    statistics.ended(cast("Any", SimpleNamespace(name="tenants/acme/models/faces/versions/1")), 0.1, ok=True)
    yield VersionMetrics(statistics)
    backlog = Backlog(time.time)
    backlog.see(())
    yield BacklogMetrics(backlog)
    yield GpuMetrics(_nvml())


def _of(registry: CollectorRegistry) -> Iterator[Collector]:
    # The collectors, not what they say: one with labels says nothing of them before its first sample.
    yield from registry._names_to_collectors.values()


def _labels(collector: Any, metric: Any) -> frozenset[str]:
    if (declared := getattr(collector, "_labelnames", None)) is not None:
        return frozenset(declared)
    return frozenset(label for sample in metric.samples for label in sample.labels) - {"le"}


def _nvml() -> Any:
    """A card."""
    return SimpleNamespace(
        NVMLError=RuntimeError, nvmlDeviceGetCount=lambda: 1,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetMemoryInfo=lambda _: SimpleNamespace(used=1, total=2),
        nvmlDeviceGetUtilizationRates=lambda _: SimpleNamespace(gpu=0), nvmlDeviceGetPowerUsage=lambda _: 0,
    )
