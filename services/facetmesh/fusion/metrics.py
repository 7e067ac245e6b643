"""The backlog as Prometheus reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from facetmesh.kit.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.metrics_core import Metric

    from facetmesh.fusion.backlog import Backlog


class BacklogMetrics(Collector):
    """Reads the backlog when it is asked. Each replica tells of all jobs, so the greatest counts, not the sum.

    Args:
        backlog: What there is to do.
    """

    def __init__(self, backlog: Backlog) -> None:
        self._backlog = backlog

    def collect(self) -> Iterator[Metric]:
        """The metrics; without samples while it is not known how much there is."""
        jobs = GaugeMetricFamily("facetmesh_jobs", "Jobs that have not ended, of all replicas.", labels=[])
        oldest = GaugeMetricFamily("facetmesh_jobs_oldest_seconds", "How long the oldest of them waits.", labels=[])
        try:
            load = self._backlog.load()
        except Unavailable:
            pass
        else:
            jobs.add_metric([], load.jobs)
            oldest.add_metric([], load.oldest_s)
        yield from (jobs, oldest)
