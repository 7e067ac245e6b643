"""Small ONNX files with the shapes of real models, and with what real ones must not have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SIDE = 64
OPSET = 17


def build(
    nodes: Sequence[onnx.NodeProto],
    outputs: Mapping[str, Sequence[int]],
    *,
    constants: Mapping[str, np.ndarray[Any, Any]] | None = None,
    metadata: Mapping[str, str] | None = None,
    opset: int = OPSET,
    side: int | str = SIDE,
) -> onnx.ModelProto:
    """A model of one image input and these nodes; a side with a name is open."""
    graph = helper.make_graph(
        list(nodes), "test",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, side, side])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)) for name, shape in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    helper.set_model_props(model, dict(metadata or {}))
    return model


def giving(
    outputs: Mapping[str, np.ndarray[Any, Any]], *, metadata: Mapping[str, str] | None = None, side: int = SIDE
) -> bytes:
    """A model that gives these arrays whatever it sees, plus nothing of the image."""
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        *(helper.make_node("Add", [f"{name}_value", "nothing"], [name]) for name in outputs),
    ]
    constants = {"zero": np.zeros((), np.float32)} | {
        f"{name}_value": value.astype(np.float32) for name, value in outputs.items()
    }
    shapes = {name: value.shape for name, value in outputs.items()}
    return build(nodes, shapes, constants=constants, metadata=metadata, side=side).SerializeToString()


def detector(*boxes: tuple[float, float, float, float, int, float], labels: Sequence[str] = ("cat", "dog")) -> bytes:
    """A YOLOv8 that sees these boxes in every image: centre, width, height, class and confidence."""
    rows = np.zeros((1, 4 + len(labels), max(8, len(boxes))), np.float32)
    for column, (x, y, width, height, class_id, confidence) in enumerate(boxes):
        rows[0, :4, column] = x, y, width, height
        rows[0, 4 + class_id, column] = confidence
    return giving({"output0": rows}, metadata={"names": str(dict(enumerate(labels))), "task": "detect"})
