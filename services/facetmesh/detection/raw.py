"""A model as it is: tensors in, tensors out; runs in a runner's child."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from facetmesh.detection import heads
from facetmesh.detection.heads.geometry import letterbox
from facetmesh.detection.hints import Hints
from facetmesh.kit.errors import FailedPrecondition
from facetmesh.runners.engines import read_model
from facetmesh.runners.images import decode_scaled
from facetmesh.runners.tasks import Reply

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from facetmesh.detection.heads import Head
    from facetmesh.runners.engines import Model
    from facetmesh.runners.tasks import Context

_TYPES = {
    "FP32": np.float32, "FP16": np.float16, "FP64": np.float64, "UINT8": np.uint8, "INT8": np.int8, "INT32": np.int32,
    "INT64": np.int64, "BOOL": np.bool_,
}  # fmt: skip
_NAMES = {np.dtype(kind): name for name, kind in _TYPES.items()}
_CHANNELS = 3


def infer(context: Context, arguments: Mapping[str, Any], blobs: Sequence[bytes]) -> Reply:
    """Runs a model once on the one blob.

    Arguments: `path`, `sha256` and `hints` of the model; `datatype` and `shape` of
    its input, of which the blob is the elements; `image`, whether the blob is an
    image file instead, which is fitted into the input as for detection; `wanted`,
    the names of the outputs, or none for all.

    Replies `outputs`: name, datatype and shape of each, whose elements are the blobs.
    """
    head, model = _open(context, arguments)
    kind = _TYPES[arguments["datatype"]]
    array: NDArray[Any]
    if arguments["image"]:
        array = image_input(blobs[0], head, arguments["shape"], kind)
    else:
        array = np.frombuffer(blobs[0], kind).reshape(arguments["shape"])
    results = run(model, array, arguments)
    wanted = [(name, results[name]) for name in arguments["wanted"] or results]
    return Reply(
        {
            "outputs": [
                {"name": name, "datatype": _NAMES[result.dtype], "shape": list(result.shape)}
                for name, result in wanted
            ]
        },
        [np.ascontiguousarray(result).tobytes() for _, result in wanted],
    )


def load(context: Context, arguments: Mapping[str, Any], _: Sequence[bytes]) -> Reply:
    """Opens a model as `infer` does, and runs it once on a black image.

    Arguments: `path`, `sha256` and `hints` of the model; `datatype` and `shape` of its input.
    """
    head, model = _open(context, arguments)
    black = np.zeros((*head.size, _CHANNELS), np.uint8)
    run(model, _fitted(black, head, head.size, arguments["shape"], _TYPES[arguments["datatype"]]), arguments)
    return Reply()


def run(model: Model, array: NDArray[Any], arguments: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """A model's outputs; of the task's arguments, `cores` counts.

    Raises:
        FailedPrecondition: MODEL_UNREADABLE: it cannot be run on this input, such as one that makes it ask for more
            memory than there is.
    """
    try:
        return model.infer(array, cores=arguments.get("cores", 0))
    except RuntimeError as error:
        raise FailedPrecondition("The model cannot be run on this input.", reason="MODEL_UNREADABLE") from error


def unload(context: Context, arguments: Mapping[str, Any], _: Sequence[bytes]) -> Reply:
    """Lets go of the model whose file has the SHA-256 that is the argument `sha256`."""
    context.forget(arguments["sha256"])
    return Reply()


def _open(context: Context, arguments: Mapping[str, Any]) -> tuple[Head, Model]:
    path, sha256 = arguments["path"], arguments["sha256"]

    def make() -> tuple[Head, Model]:
        graph = read_model(Path(path), sha256=sha256)
        return heads.of(graph, Hints(**arguments["hints"])), graph.compile(context.setting)

    return context.once(("raw", sha256), make)


def image_input(
    data: bytes, head: Head, shape: Sequence[int], kind: type[np.generic] = np.float32
) -> NDArray[Any]:
    """An image file as the model wants to see it, in the layout of its input's shape and of its type."""
    image = decode_scaled(data, longer_side=max(head.size))
    return _fitted(image.pixels, head, (image.height, image.width), shape, kind)


def _fitted(
    image: NDArray[np.uint8], head: Head, original: tuple[int, int], shape: Sequence[int], kind: type[np.generic]
) -> NDArray[Any]:
    pixels, _ = letterbox(image, head.size, original, fill=head.fill)
    array: NDArray[Any] = pixels
    if kind is not np.uint8:  # who takes bytes takes them as they are
        array = ((pixels.astype(np.float32) - head.mean) / head.scale).astype(kind)
    return array.transpose(0, 3, 1, 2) if shape[1] == _CHANNELS else array
