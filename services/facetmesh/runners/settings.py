"""How runners are started and what they may use."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class EngineSetting:
    """Which inference engine, and how it uses this machine; `probe` chooses it."""

    name: str = "f32"
    """What people call it, in `facetmesh doctor` and in logs."""
    engine: Literal["openvino", "onnxruntime"] = "openvino"
    """What runs ONNX models; TensorFlow Lite files are always OpenVINO's, and TorchScript is torch's."""
    device: Literal["cpu", "cuda", "tensorrt"] = "cpu"
    """Where ONNX Runtime runs them."""
    precision: Literal["f32", "bf16"] | None = "f32"
    """The arithmetic's precision; None leaves it to the engine."""
    batch: int = 1
    """Calls of a model that may run together; 1 where the device gains nothing from that."""
    max_isa: str | None = None
    """oneDNN's highest instruction set (ONEDNN_MAX_CPU_ISA); None for all that the CPU shows."""

    def environment(self) -> dict[str, str]:
        """What must stand in a process's environment before the engine is loaded."""
        return {} if self.max_isa is None else {"ONEDNN_MAX_CPU_ISA": self.max_isa}


@dataclass(frozen=True, slots=True)
class RunnerLimits:
    """What one runner may use."""

    memory_bytes: int = 4 << 30
    """Private memory (RLIMIT_DATA); an allocation beyond it fails in the child."""
    kept_bytes: int = 0
    """Private memory beyond which a child lets go of the models that were used least lately; as much as it may use
    when 0."""
    open_files: int = 256
    """Open file descriptors."""
    concurrency: int = 1
    """Calls that run in one child at a time, each on a thread of its own."""
    start_timeout_s: float = 30.0
    """How long a child may take to import its program."""
    nice: int = 5
    """How readily it leaves the cores to others, up to 19: first to the services, which read and answer everybody's
    calls in moments."""
    max_header_bytes: int = 4 << 20
    """JSON part of a reply."""
    max_blob_bytes: int = 256 << 20
    """Binary part of a reply."""


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """What a pool of runners may use, and when it gives up on a model."""

    runners: int = 8
    """Live processes; the least recently used one makes room."""
    memory_bytes: int = 16 << 30
    """What they may take together, as it is measured; the least recently used ones make room."""
    gpu_memory_bytes: int | None = None
    """What they may take together of all cards' memory, in the same way; None for all of it."""
    queue: int = 32
    """Calls of one domain that wait; one more is refused."""
    idle_s: float = 300.0
    """A runner unused for so long is stopped."""
    deaths: int = 3
    """So many deaths of one subject within `deaths_window_s` put it into quarantine."""
    deaths_window_s: float = 60.0
    """How long a death counts."""
    quarantine_s: float = 300.0
    """How long a quarantine lasts."""
    max_backoff_s: float = 5.0
    """The longest pause before a runner that keeps dying is started again."""
    runner: RunnerLimits = field(default_factory=RunnerLimits)
    """What each runner may use."""
