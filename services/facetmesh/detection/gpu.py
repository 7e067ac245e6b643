"""What NVIDIA's cards do, as their driver tells by NVML."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.metrics_core import Metric


class GpuMetrics(Collector):
    """Reads the cards when it is asked.

    Args:
        nvml: The module pynvml, initialised.
    """

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml

    def collect(self) -> Iterator[Metric]:
        """The metrics, each by the card's index; those that a card does not know are left out."""
        used = GaugeMetricFamily("facetmesh_gpu_memory_used_bytes", "Memory in use on a card.", labels=["gpu"])
        total = GaugeMetricFamily("facetmesh_gpu_memory_bytes", "Memory of a card.", labels=["gpu"])
        busy = GaugeMetricFamily(
            "facetmesh_gpu_utilization_ratio", "Part of the time in which a card had work.", labels=["gpu"]
        )
        power = GaugeMetricFamily("facetmesh_gpu_power_watts", "What a card draws.", labels=["gpu"])
        nvml = self._nvml
        for index in range(nvml.nvmlDeviceGetCount()):
            card, labels = nvml.nvmlDeviceGetHandleByIndex(index), [str(index)]
            for metrics, read in (
                ((used, total), lambda card=card: _memory(nvml, card)),
                ((busy,), lambda card=card: (nvml.nvmlDeviceGetUtilizationRates(card).gpu / 100,)),
                ((power,), lambda card=card: (nvml.nvmlDeviceGetPowerUsage(card) / 1000,)),
            ):
                try:
                    values = read()
                except nvml.NVMLError:
                    continue
                for metric, value in zip(metrics, values, strict=True):
                    metric.add_metric(labels, value)
        yield from (used, total, busy, power)


def _memory(nvml: Any, card: Any) -> tuple[int, int]:
    memory = nvml.nvmlDeviceGetMemoryInfo(card)
    return memory.used, memory.total
