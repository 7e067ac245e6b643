"""Raw inference: a tensor or an image file in, the model's own outputs out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from facetmesh.detection.detector import subject
from facetmesh.kit.errors import Internal, InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from facetmesh.detection.detector import Detector
    from facetmesh.detection.versions import Tensor, Version
    from facetmesh.runners.tasks import Reply, Runners

SIZES: Mapping[str, int] = {
    "FP32": 4, "FP16": 2, "FP64": 8, "UINT8": 1, "INT8": 1, "INT32": 4, "INT64": 8, "BOOL": 1,
}  # fmt: skip
"""Bytes of an element, by datatype."""
BYTES = "BYTES"
"""The datatype of an image file."""
_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Array:
    """A tensor with its elements."""

    name: str
    datatype: str
    """As KServe's protocol calls it; BYTES for an image file."""
    shape: tuple[int, ...]
    data: bytes
    """Its elements, little endian, row by row; or the file."""


class TensorRunner:
    """Runs models on tensors.

    Args:
        detector: Knows how they are opened.
        runners: Where they run.
        is_loaded: Whether a tenant's process is up and has a subject's model.
    """

    def __init__(self, detector: Detector, runners: Runners, *, is_loaded: Callable[[str, str], bool]) -> None:
        self._detector = detector
        self._runners = runners
        self._is_loaded = is_loaded

    async def infer(self, version: Version, given: Array, wanted: Sequence[str]) -> list[Array]:
        """A model's outputs.

        Args:
            version: The model's version to run.
            given: Its input, or an image file, which is fitted into it.
            wanted: The outputs' names; all when empty.

        Raises:
            InvalidArgument: INPUT_MISMATCH: it is not what the model takes; OUTPUT_UNKNOWN; OUTPUT_REPEATED; an
                image is refused.
            FacetmeshError: As for `Detector.detect`.
        """
        expected = self._expected(version, given)
        outputs = {tensor.name for tensor in version.facts.outputs}
        if unknown := sorted(set(wanted) - outputs):
            raise InvalidArgument(
                f'The model has no output "{unknown[0]}"; it has {", ".join(sorted(outputs))}.',
                reason="OUTPUT_UNKNOWN",
            )
        if len(set(wanted)) < len(wanted):
            raise InvalidArgument("An output is asked for twice.", reason="OUTPUT_REPEATED")
        image = given.datatype == BYTES
        reply = await self._runners.call(
            domain=version.tenant_id,
            task="infer",
            arguments={
                **await self._detector.opening(version),
                "datatype": expected.datatype,
                "shape": list(expected.shape if image else given.shape),
                "image": image,
                "wanted": list(wanted),
            },
            blobs=[given.data],
            subject=subject(version),
            timeout_s=_TIMEOUT_S,
        )
        return _arrays(reply)

    async def load(self, version: Version) -> None:
        """Opens a model and runs it once, so that its first call does not wait; raises what `Detector.detect` does."""
        (expected,) = version.facts.inputs
        await self._runners.call(
            domain=version.tenant_id,
            task="load",
            arguments={
                **await self._detector.opening(version), "datatype": expected.datatype, "shape": list(expected.shape),
            },
            subject=subject(version),
            timeout_s=_TIMEOUT_S,
        )  # fmt: skip

    async def unload(self, version: Version) -> None:
        """Gives a model's memory back; its next call loads it again. No process is started for that."""
        if not self._is_loaded(version.tenant_id, subject(version)):
            return
        await self._runners.call(
            domain=version.tenant_id, task="unload", arguments={"sha256": version.sha256}, subject=subject(version),
            timeout_s=_TIMEOUT_S,
        )  # fmt: skip

    def _expected(self, version: Version, given: Array) -> Tensor:
        """The input that is meant, once what is given fits it."""
        (expected,) = version.facts.inputs
        if given.datatype == BYTES:
            return expected
        fits = len(given.shape) == len(expected.shape) and all(
            came == size if size > 0 else came > 0 for came, size in zip(given.shape, expected.shape, strict=True)
        )
        if (given.name, given.datatype) != (expected.name, expected.datatype) or not fits:
            raise InvalidArgument(
                f'Expected is {expected.datatype} "{expected.name}" of shape {list(expected.shape)}, or an image file '
                f'as {BYTES}; {given.datatype} "{given.name}" of shape {list(given.shape)} came.',
                reason="INPUT_MISMATCH",
            )
        size = math.prod(given.shape) * SIZES[expected.datatype]
        if len(given.data) != size:
            raise InvalidArgument(
                f"The shape {list(given.shape)} has {size} bytes of {expected.datatype}; {len(given.data)} came.",
                reason="INPUT_MISMATCH",
            )
        return expected


def _arrays(reply: Reply) -> list[Array]:
    """Reads what a runner's child says it made. A child is not trusted."""
    try:
        entries: list[Any] = list(reply.values["outputs"])
        arrays = [
            Array(str(one["name"]), str(one["datatype"]), tuple(int(size) for size in one["shape"]), blob)
            for one, blob in zip(entries, reply.blobs, strict=True)
        ]
        whole = all(len(one.data) == math.prod(one.shape) * SIZES[one.datatype] for one in arrays)
    except (KeyError, TypeError, ValueError):
        whole = False
    if not whole:
        raise Internal("The model's process gave no sensible answer.", reason="RUNNER_REPLY_INVALID")
    return arrays
