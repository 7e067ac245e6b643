"""The versions' statistics as Prometheus reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.metrics_core import Metric

    from facetmesh.detection.statistics import Statistics

_LABELS = ("tenant", "model", "version")


class VersionMetrics(Collector):
    """Reads the statistics when it is asked.

    Args:
        statistics: What became of each version's calls.
    """

    def __init__(self, statistics: Statistics) -> None:
        self._statistics = statistics

    def collect(self) -> Iterator[Metric]:
        """The metrics, each by tenant, model and version."""
        calls = CounterMetricFamily(
            "facetmesh_version_calls", "Calls that a model's version ended.", labels=(*_LABELS, "outcome")
        )
        seconds = CounterMetricFamily(
            "facetmesh_version_seconds", "How long they took together.", labels=(*_LABELS, "outcome")
        )
        compared = CounterMetricFamily(
            "facetmesh_version_shadow_calls", "Copies of calls, in the shadow of the answer.", labels=_LABELS
        )
        agreement = CounterMetricFamily(
            "facetmesh_version_shadow_agreement", "How much those agreed with the answers, 0 to 1 each.",
            labels=_LABELS,
        )  # fmt: skip
        for name, tally in self._statistics.all():
            _, tenant, _, model, _, version = name.split("/")
            labels = (tenant, model, version)
            calls.add_metric((*labels, "ok"), tally.succeeded)
            calls.add_metric((*labels, "failed"), tally.failed)
            seconds.add_metric((*labels, "ok"), tally.succeeded_s)
            seconds.add_metric((*labels, "failed"), tally.failed_s)
            compared.add_metric(labels, tally.compared)
            agreement.add_metric(labels, tally.agreement)
        yield from (calls, seconds, compared, agreement)
