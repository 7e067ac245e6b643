"""Work on models' files by strangers: in a process that is thrown away, under limits of memory and time.

A file is looked at for the first time here; checkpoints of ultralytics', which
can run code, become ONNX; models are quantized, and tried on images.
"""

from __future__ import annotations

import asyncio
import importlib.util
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from facetmesh.detection import reports
from facetmesh.detection.detector import Image, Options, Result, arguments, read_result
from facetmesh.detection.running import Pausable
from facetmesh.kit.errors import DeadlineExceeded, FailedPrecondition, ResourceExhausted, Unavailable
from facetmesh.runners.settings import PoolLimits, RunnerLimits
from facetmesh.runners.tasks import Runners

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from facetmesh.detection.hints import Hints
    from facetmesh.detection.versions import Facts
    from facetmesh.runners.tasks import Reply

LIMITS = PoolLimits(
    runners=1, runner=RunnerLimits(memory_bytes=4 << 30, start_timeout_s=120.0, max_blob_bytes=1 << 30, nice=10)
)
"""What a process may use that works on one file. It has no slot of the scheduler's, so it takes a third of what
serving does where both want a core."""
SLOW_LIMITS = replace(LIMITS, runner=replace(LIMITS.runner, nice=15))
"""And if it does so for minutes: it takes the cores that serving leaves."""
INSPECT_TIMEOUT_S = 60.0
"""Reading, compiling and one image: the largest YOLO takes about 10 s on two cores."""
CONVERT_TIMEOUT_S = 300.0
"""Importing torch takes most of a minute on a slow disk."""
QUANTIZE_TIMEOUT_S = 300.0
"""Some hundred images through YOLO11x, in float, on two cores that others use too."""
UPLOAD = "upload_"
"""How folders of files that are inspected are called: like no tenant."""
_TRUSTED = "catalogue_"
INSPECTION = "facetmesh.detection.inspection_program"
CONVERSION = "facetmesh.detection.conversion_program"
QUANTIZATION = "facetmesh.detection.quantization_program"
DETECTION = "facetmesh.detection.program"


class Works(Protocol):
    """Who works on files."""

    async def inspect(self, path: Path, sha256: str, hints: Hints) -> Facts:
        """What a model's file is."""
        ...

    async def convert(self, checkpoint: bytes) -> bytes:
        """The ONNX model of a checkpoint."""
        ...

    async def quantize(self, path: Path, sha256: str, hints: Hints, images: Sequence[bytes]) -> bytes:
        """The ONNX model of 8 bits of an ONNX model."""
        ...

    async def detect(self, path: Path, sha256: str, hints: Hints, images: Sequence[bytes]) -> list[Result]:
        """What a model sees in images."""
        ...


class PausableRunners(Runners, Pausable, Protocol):
    """Runners that can be made to stand still."""


class Processes(Protocol):
    """Makes runners: `runners.pool.RunnerPool`."""

    def __call__(self, program: str, /, *, limits: PoolLimits) -> AbstractAsyncContextManager[PausableRunners]:
        """Runners of a program, which end with the context."""
        ...


@dataclass(frozen=True, slots=True)
class _Bench:
    """Where one file at a time is worked on."""

    limits: PoolLimits
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


class Workshop:
    """Works on models' files, one at a time.

    Args:
        processes: Makes runners.
        inspect_timeout_s: How long a file may be looked at.
    """

    def __init__(self, processes: Processes, *, inspect_timeout_s: float = INSPECT_TIMEOUT_S) -> None:
        self._processes = processes
        self._inspect_timeout_s = inspect_timeout_s
        self._at_work: list[tuple[PausableRunners, str]] = []
        self._going = asyncio.Event()
        self._going.set()
        self._quick = _Bench(LIMITS)
        # What takes minutes has a turn of its own: nobody's upload waits for it.
        self._slow = _Bench(SLOW_LIMITS)

    def pause(self, _: str) -> None:
        """Has the processes stand still, and none start, for whoever's call."""
        self._going.clear()
        for runners, domain in self._at_work:
            runners.pause(domain)

    def resume(self) -> None:
        """Has them go on."""
        self._going.set()
        for runners, domain in self._at_work:
            runners.resume(domain)

    async def inspect(self, path: Path, sha256: str, hints: Hints) -> Facts:
        """What a model's file is.

        Args:
            path: The file, .onnx or .tflite.
            sha256: What its SHA-256 must be, in hex.
            hints: What it may not say of itself.

        Raises:
            FailedPrecondition: What is wrong with it (`onnx_rules`, `heads`); MODEL_TOO_SLOW, MODEL_TOO_LARGE or
                MODEL_CRASHED: it did not keep the limits.
        """
        reply = await self._run(
            INSPECTION, "inspect", _opening(path, sha256, hints), domain=_domain(path), bench=self._quick,
            timeout_s=self._inspect_timeout_s,
        )  # fmt: skip
        return reports.facts(reply.values)

    async def convert(self, checkpoint: bytes) -> bytes:
        """The ONNX model of a checkpoint of ultralytics'.

        Raises:
            FailedPrecondition: CONVERT_MISSING: this installation cannot; CONVERT_FAILED: it is no such checkpoint;
                as for `inspect`, where it did not keep the limits.
        """
        if importlib.util.find_spec("ultralytics") is None:
            raise FailedPrecondition(
                "This installation does not convert .pt files: the operator can install facetmesh[convert], or "
                "export the model to ONNX yourself.",
                reason="CONVERT_MISSING",
            )
        reply = await self._run(
            CONVERSION, "convert", {}, [checkpoint], domain=f"{UPLOAD}conversion", bench=self._slow,
            timeout_s=CONVERT_TIMEOUT_S,
        )  # fmt: skip
        return reports.file(reply)

    async def quantize(self, path: Path, sha256: str, hints: Hints, images: Sequence[bytes]) -> bytes:
        """The ONNX model of 8 bits of an ONNX model.

        Args:
            path: The file, .onnx.
            sha256: What its SHA-256 must be, in hex.
            hints: What it may not say of itself.
            images: Image files to calibrate with.

        Raises:
            FailedPrecondition: QUANTIZE_MISSING: this installation cannot; QUANTIZATION_FAILED: the model does not
                lend itself to it; as for `inspect`, where it did not keep the limits.
            InvalidArgument: An image is refused (`runners.images`).
        """
        if importlib.util.find_spec("nncf") is None:
            raise FailedPrecondition(
                "This installation does not quantize models: the operator can install facetmesh[quantize].",
                reason="QUANTIZE_MISSING",
            )
        reply = await self._run(
            QUANTIZATION, "quantize", _opening(path, sha256, hints), images, domain=_domain(path),
            bench=self._slow, timeout_s=QUANTIZE_TIMEOUT_S,
        )  # fmt: skip
        return reports.file(reply)

    async def detect(self, path: Path, sha256: str, hints: Hints, images: Sequence[bytes]) -> list[Result]:
        """What a model sees in images, with the options that a call has if it gives none.

        Args:
            path: The file.
            sha256: What its SHA-256 must be, in hex.
            hints: What it may not say of itself; all labels.
            images: Image files.

        Raises:
            FailedPrecondition: As for `inspect`, where it did not keep the limits.
            InvalidArgument: An image is refused (`runners.images`).
        """
        opening, results = _opening(path, sha256, hints), []
        async with self._processing(DETECTION, _domain(path), self._slow, QUANTIZE_TIMEOUT_S) as runners:
            for data in images:
                reply = await runners.call(
                    domain=_domain(path), task="detect", arguments={**opening, **arguments(Image(data), Options())},
                    blobs=[data], subject="detect", timeout_s=QUANTIZE_TIMEOUT_S,
                )  # fmt: skip
                results.append(read_result(reply.values, hints.labels))
        return results

    async def _run(
        self,
        program: str,
        task: str,
        arguments: Mapping[str, Any],
        blobs: Sequence[bytes] = (),
        *,
        domain: str,
        bench: _Bench,
        timeout_s: float,
    ) -> Reply:
        async with self._processing(program, domain, bench, timeout_s) as runners:
            return await runners.call(
                domain=domain, task=task, arguments=arguments, blobs=blobs, subject=task, timeout_s=timeout_s
            )

    @asynccontextmanager
    async def _processing(
        self, program: str, domain: str, bench: _Bench, timeout_s: float
    ) -> AsyncIterator[Runners]:
        """Runners of a program, when it is its turn; their failures become the model's."""
        try:
            async with (
                bench.turn, asyncio.timeout(timeout_s), self._processes(program, limits=bench.limits) as runners
            ):  # fmt: skip
                await self._going.wait()
                self._at_work.append((runners, domain))
                try:
                    yield runners
                finally:
                    self._at_work.remove((runners, domain))
        except (DeadlineExceeded, TimeoutError):
            raise FailedPrecondition(
                f"The model was not done within {timeout_s:.0f} s.", reason="MODEL_TOO_SLOW"
            ) from None
        except ResourceExhausted:
            raise FailedPrecondition(
                "The model needs more memory than one may use.", reason="MODEL_TOO_LARGE"
            ) from None
        except Unavailable as error:
            raise FailedPrecondition(
                f"The model ended the process that tried it ({error.metadata.get('cause', 'unknown')}).",
                reason="MODEL_CRASHED",
            ) from None


def _opening(path: Path, sha256: str, hints: Hints) -> dict[str, Any]:
    return {"path": str(path), "sha256": sha256, "hints": asdict(hints)}


def _domain(path: Path) -> str:
    """The process may read the folder of its own file, and nobody else's."""
    folder = path.parent.name
    return folder if folder.startswith(UPLOAD) else _TRUSTED
