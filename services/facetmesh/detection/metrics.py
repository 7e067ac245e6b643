"""The versions' statistics as Prometheus reads them."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from facetmesh.detection.rollout.samples import BOUNDS_S, SCORE_BINS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from prometheus_client.metrics_core import Metric

    from facetmesh.detection.statistics import Statistics

_LABELS = ("tenant", "model", "version")
_DETAILED = 256
"""Of so many versions, those called last, there is all that the gates of rollouts look at."""


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
            labels = tuple(name.split("/")[1::2])
            calls.add_metric((*labels, "ok"), tally.succeeded)
            calls.add_metric((*labels, "failed"), tally.failed)
            seconds.add_metric((*labels, "ok"), tally.succeeded_s)
            seconds.add_metric((*labels, "failed"), tally.failed_s)
            compared.add_metric(labels, tally.compared)
            agreement.add_metric(labels, tally.agreement)
        yield from (calls, seconds, compared, agreement)
        yield from self._details()

    def _details(self) -> Iterator[Metric]:
        latency = HistogramMetricFamily(
            "facetmesh_version_latency_seconds", "How long calls took.", labels=_LABELS
        )
        compute = HistogramMetricFamily(
            "facetmesh_version_call_compute_seconds", "Core-seconds of calls that did not have to load the model.",
            labels=_LABELS,
        )  # fmt: skip
        scores = CounterMetricFamily(
            "facetmesh_version_scores", "Objects by the lower end of their score's tenth.", labels=(*_LABELS, "score")
        )
        classes = CounterMetricFamily(
            "facetmesh_version_classes", "Objects by their class.", labels=(*_LABELS, "class_id")
        )
        empty = CounterMetricFamily("facetmesh_version_empty", "Calls that found no object.", labels=_LABELS)
        for name, tally in list(self._statistics.all())[-_DETAILED:]:
            labels = tuple(name.split("/")[1::2])
            latency.add_metric(labels, _buckets(tally.latency), tally.succeeded_s + tally.failed_s)
            compute.add_metric(labels, _buckets(tally.compute), None)
            empty.add_metric(labels, tally.empty)
            for index, count in enumerate(tally.scores):
                scores.add_metric((*labels, f"{index / SCORE_BINS:.1f}"), count)
            for class_id, count in enumerate(tally.classes):
                if count:
                    classes.add_metric((*labels, str(class_id)), count)
        yield from (latency, compute, scores, classes, empty)


def _buckets(counts: Sequence[int]) -> list[tuple[str, float]]:
    """Cumulative counts, by the upper ends of the buckets."""
    ends = [*(f"{bound:.6g}" for bound in BOUNDS_S), "+Inf"]
    return list(zip(ends, accumulate(counts), strict=True))
