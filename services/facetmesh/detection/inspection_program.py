"""The program of the process in which a model's file is looked at for the first time, and which ends with that.

Its one task, `inspect`, checks a file against the rules, runs it once, and says what it is.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from facetmesh.detection import heads, onnx_rules
from facetmesh.detection.hints import Hints
from facetmesh.kit.errors import FailedPrecondition
from facetmesh.runners.engines import ImageInput, file_kind, read_model
from facetmesh.runners.tasks import Reply

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from facetmesh.runners.tasks import Context, Task

_GREY = 114


def inspect(context: Context, arguments: Mapping[str, Any], _: Sequence[bytes]) -> Reply:
    """Says what a model is.

    Arguments: `path` and `sha256` of its file, and `hints` for what the file does
    not say (`hints.Hints`).

    Replies `labels`, `task`, `height` and `width` of the input, `inputs` and
    `outputs` as the file has them, and `ms`, how long one image took.
    """
    path = Path(arguments["path"])
    sides: dict[str, Any] = {"inputs": None, "outputs": None}
    if file_kind(path) == "onnx":
        model = onnx_rules.check(path.read_bytes())
        initialized = {tensor.name for tensor in model.graph.initializer}
        inputs = [value for value in model.graph.input if value.name not in initialized]
        sides = {"inputs": onnx_rules.tensors(inputs), "outputs": onnx_rules.tensors(model.graph.output)}
    graph = read_model(path, sha256=arguments["sha256"])
    sides = {side: known or _tensors(getattr(graph, side)) for side, known in sides.items()}
    head = heads.of(graph, Hints(**arguments["hints"]))
    height, width = head.size
    began = time.perf_counter()
    try:
        compiled = graph.compile(context.setting, ImageInput(height, width, head.mean, head.scale))
        outputs = compiled.infer(np.full((1, height, width, 3), _GREY, np.uint8))
    except (RuntimeError, FailedPrecondition) as error:
        if isinstance(error, FailedPrecondition) and error.reason == "MODEL_UNSUPPORTED":
            raise
        if "alloc" in f"{error} {error.__cause__}":
            raise MemoryError from error
        raise FailedPrecondition("The model cannot be run on an image.", reason="MODEL_UNREADABLE") from error
    if not all(np.isfinite(output).all() for output in outputs.values()):
        raise FailedPrecondition(
            "Of a grey image the model makes what is no number (NaN or infinity).", reason="MODEL_OUTPUT_INVALID"
        )
    ms = (time.perf_counter() - began) * 1000
    return Reply({"labels": head.labels, "task": head.task, "height": height, "width": width, "ms": ms, **sides})


def _tensors(shapes: Mapping[str, tuple[int | None, ...]]) -> list[dict[str, Any]]:
    return [
        {"name": name, "datatype": "FP32", "shape": [-1 if size is None else size for size in shape]}
        for name, shape in shapes.items()
    ]


TASKS: Mapping[str, Task] = {"inspect": inspect}
