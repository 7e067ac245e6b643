"""Which engine setting is the fastest that lives on this machine.

An engine can end its process on the first inference: on a virtual machine that
shows AMX in its CPU's flags and does not have it, OpenVINO's default dies of
SIGILL, which no `except` catches. So each setting is tried in a child process,
once a machine, and the result is kept in the cache folder.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import importlib.metadata
import json
import logging
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facetmesh.kit import files
from facetmesh.kit.errors import FacetmeshError, FailedPrecondition
from facetmesh.runners.pool import RunnerPool
from facetmesh.runners.settings import EngineSetting

if TYPE_CHECKING:
    from collections.abc import Mapping

logger = logging.getLogger(__name__)

F32 = EngineSetting("f32", precision="f32")
"""The most accurate one, and the one that always works."""
AUTOMATIC = EngineSetting("automatic", precision=None)
"""What the engine itself would choose, such as bf16 through AMX."""
BF16_WITHOUT_AMX = EngineSetting("bf16-avx512", precision="bf16", max_isa="AVX512_CORE_BF16")
"""bf16 on a CPU whose AMX is not to be used."""

ONNX_RUNTIME = EngineSetting("onnxruntime", engine="onnxruntime")
"""Where OpenVINO does not live."""
GPU = (
    EngineSetting("tensorrt", engine="onnxruntime", device="tensorrt", precision=None),
    EngineSetting("cuda", engine="onnxruntime", device="cuda", precision=None),
)
"""Where there is an NVIDIA card, and ONNX Runtime for it."""

PROGRAM = "facetmesh.runners.trial"
"""What is run to try a setting."""

_TRIAL_S = 60.0
_CPU_FACTS = {
    "vendor_id", "cpu family", "model", "model name", "stepping", "flags",
    "CPU implementer", "CPU architecture", "CPU variant", "CPU part", "Features",
}  # fmt: skip
# bf16 costs accuracy: it has to be worth it.
_WORTH = 0.9


@dataclass(frozen=True, slots=True)
class Trial:
    """How one setting did."""

    setting: EngineSetting
    """What was tried."""
    ms: float | None
    """Time of one inference of a small net, in milliseconds; None if it failed."""
    batch: int = 1
    """How many inferences are best run together; 1 where that gains nothing."""
    failure: str = ""
    """How it failed: a signal's name, or a reason; empty if it did not."""


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What `probe` found out."""

    cpu: str
    """The CPU's name."""
    engine: str
    """The engine and its version."""
    trials: tuple[Trial, ...]
    """Each setting that was tried."""
    setting: EngineSetting
    """The one to use, with its batch; f32 where none lived."""

    @property
    def usable(self) -> bool:
        """Whether any setting lived."""
        return any(trial.ms is not None for trial in self.trials)

    def chosen(self) -> EngineSetting:
        """The one to use, by a service that cannot do without.

        Raises:
            FailedPrecondition: ENGINE_UNUSABLE: none lived.
        """
        if not self.usable:
            raise FailedPrecondition(
                "No setting of the inference engine lives on this machine: `facetmesh doctor` says more.",
                reason="ENGINE_UNUSABLE",
            )
        return self.setting


def probe(cache_dir: Path, *, force: bool = False) -> ProbeResult:
    """Returns the best engine setting for this machine, from the cache if it is there.

    Takes a few seconds the first time. Processes that ask at the same time wait
    for the first one's answer.

    Args:
        cache_dir: Where the result is kept; made if need be.
        force: Try again, whatever the cache has.

    Raises:
        FailedPrecondition: ENGINE_MISSING: OpenVINO is not installed; FOLDER_NOT_WRITABLE: the cache folder.
        ResourceExhausted: DISK_FULL.
    """
    facts = _cpu_facts()
    engine = f"OpenVINO {_engine_version()}"
    if other := _version("onnxruntime-gpu") or _version("onnxruntime"):
        engine += f", ONNX Runtime {other}"
    # What a version with other settings found is in another file: two on one machine do not undo each other's.
    form = [field.name for kind in (ProbeResult, Trial, EngineSetting) for field in dataclasses.fields(kind)]
    key = hashlib.sha256(json.dumps([facts, engine, form], sort_keys=True).encode()).hexdigest()[:16]
    path = cache_dir / f"probe-{key}.json"
    with files.explained(cache_dir, variable="FACETMESH_CACHE"):
        cache_dir.mkdir(parents=True, exist_ok=True)
        return _remembered(path, facts, engine, force=force)


def _remembered(path: Path, facts: Mapping[str, str], engine: str, *, force: bool) -> ProbeResult:
    """What is known of this machine, tried now where nothing is."""
    with files.locked(path.with_suffix(".lock")):
        known = None if force else _load(path)
        if known is None:
            trials = tuple(asyncio.run(_try(setting)) for setting in (*candidates(facts), *gpu_candidates()))
            if not any(trial.ms is not None for trial in trials) and _version("onnxruntime"):
                trials += (asyncio.run(_try(ONNX_RUNTIME)),)
            cpu = facts.get("model name", platform.machine())
            known = ProbeResult(cpu, engine, trials, choose(trials))
            # What failed altogether is tried again: it may have been for want of memory.
            if known.usable:
                files.write(path, json.dumps(dataclasses.asdict(known), indent=2))
            outcomes = {trial.setting.name: trial.failure or trial.ms for trial in trials}
            logger.info("engine settings tried", extra={"chosen": known.setting.name, "outcomes": outcomes})
    return known


def candidates(facts: Mapping[str, str]) -> tuple[EngineSetting, ...]:
    """Returns the settings to try on a CPU with these facts."""
    flags = set((facts.get("flags") or facts.get("Features") or "").split())
    if "amx_bf16" in flags:
        return (F32, AUTOMATIC, BF16_WITHOUT_AMX)
    if flags & {"avx512_bf16", "bf16"}:
        return (F32, AUTOMATIC)
    return (F32,)


def gpu_candidates(devices: Path = Path("/dev/nvidiactl")) -> tuple[EngineSetting, ...]:
    """Returns the settings to try where there is an NVIDIA card and an engine for it."""
    return GPU if devices.exists() and _version("onnxruntime-gpu") else ()


def choose(trials: tuple[Trial, ...]) -> EngineSetting:
    """Returns the fastest setting that lived; f32 unless another is clearly faster."""
    alive = [trial for trial in trials if trial.ms is not None]
    if not alive:
        return F32
    best = min(alive, key=lambda trial: trial.ms or 0.0)
    for trial in alive:
        if trial.setting == F32 and (best.ms or 0.0) > _WORTH * (trial.ms or 0.0):
            best = trial
    return dataclasses.replace(best.setting, batch=best.batch)


async def _try(setting: EngineSetting) -> Trial:
    async with RunnerPool(PROGRAM, setting=setting) as pool:
        try:
            reply = await pool.call(domain="probe", task="measure", timeout_s=_TRIAL_S)
        except FacetmeshError as error:
            return Trial(setting, None, failure=error.metadata.get("cause", error.reason))
    return Trial(setting, float(reply.values["ms"]), int(reply.values["batch"]))


def _engine_version() -> str:
    version = _version("openvino")
    if version is None:
        raise FailedPrecondition(
            'The inference engine is not installed: run `pip install "facetmesh[serve]"`.', reason="ENGINE_MISSING"
        )
    return version


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_facts() -> dict[str, str]:
    """What /proc/cpuinfo says of the first CPU that does not change from boot to boot."""
    try:
        first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        return {"model name": platform.processor()}
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs if name.strip() in _CPU_FACTS}


def _load(path: Path) -> ProbeResult | None:
    try:
        stored: dict[str, Any] = json.loads(path.read_text())
        trials = tuple(
            Trial(EngineSetting(**trial["setting"]), trial["ms"], trial["batch"], trial["failure"])
            for trial in stored["trials"]
        )
        return ProbeResult(stored["cpu"], stored["engine"], trials, EngineSetting(**stored["setting"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
