"""NVIDIA's cards, by NVML: whether there are any, and what a process takes of their memory."""

from __future__ import annotations

import importlib
from typing import Any


def open_nvml() -> Any:
    """The module pynvml, initialised; None where there is no driver, or nvidia-ml-py is not installed (extra `gpu`)."""
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return None
    return nvml


class CardMemory:
    """What processes take of the memory of all cards.

    Args:
        nvml: The module pynvml, initialised; None where there are no cards.
    """

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml

    def __call__(self, pid: int) -> int:
        """What a process takes, in bytes; 0 where the driver does not know it, or does not tell."""
        nvml = self._nvml
        if nvml is None:
            return 0
        taken = 0
        try:
            for index in range(nvml.nvmlDeviceGetCount()):
                found = nvml.nvmlDeviceGetComputeRunningProcesses(nvml.nvmlDeviceGetHandleByIndex(index))
                # None is what a driver says that keeps no account of processes.
                taken += sum(one.usedGpuMemory or 0 for one in found if one.pid == pid)
        except nvml.NVMLError:
            return 0
        return taken
