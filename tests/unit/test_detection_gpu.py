"""Cards as NVML tells of them, by a stand-in for the driver's library: most machines have no card."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from facetmesh.detection.gpu import GpuMetrics


class NvmlError(Exception):
    """As pynvml raises it."""


def nvml(*, power: bool = True) -> Any:
    """Two cards."""

    def power_usage(_: int) -> int:
        if not power:
            raise NvmlError
        return 70_500

    return SimpleNamespace(
        NVMLError=NvmlError,
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetMemoryInfo=lambda index: SimpleNamespace(used=1 << 30, total=(index + 1) << 34),
        nvmlDeviceGetUtilizationRates=lambda index: SimpleNamespace(gpu=25 * index),
        nvmlDeviceGetPowerUsage=power_usage,
    )


def values(metrics: GpuMetrics) -> dict[tuple[str, str], float]:
    """The samples, by name and card."""
    return {
        (sample.name, sample.labels["gpu"]): sample.value for metric in metrics.collect() for sample in metric.samples
    }


def test_each_card_is_told() -> None:
    """In bytes, watts and parts of one."""
    found = values(GpuMetrics(nvml()))
    assert found["facetmesh_gpu_memory_bytes", "1"] == 2 << 34
    assert found["facetmesh_gpu_memory_used_bytes", "0"] == 1 << 30
    assert found["facetmesh_gpu_utilization_ratio", "1"] == 0.25
    assert found["facetmesh_gpu_power_watts", "0"] == 70.5


def test_what_a_card_does_not_know_is_left_out() -> None:
    """And the rest is told."""
    found = values(GpuMetrics(nvml(power=False)))
    assert len(found) == 6
    assert not any(name == "facetmesh_gpu_power_watts" for name, _ in found)
