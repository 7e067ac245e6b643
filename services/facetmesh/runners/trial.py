"""The program with which `probe` tries out a setting: a small net, and how fast it runs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import openvino as ov
from openvino import opset13 as ops

from facetmesh.runners.engines.openvino import compile_model
from facetmesh.runners.tasks import Reply

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from facetmesh.runners.engines import Model
    from facetmesh.runners.tasks import Context, Task

_SIDE = 160
_CHANNELS = 64
_LAYERS = 5
_RUNS = 20


def measure(context: Context, _: Mapping[str, Any], __: Sequence[bytes]) -> Reply:
    """Returns `ms`, the least time of one inference, in milliseconds."""
    if context.setting.engine == "openvino":
        model: Model = compile_model(_net(), context.setting)
    else:
        # Only where it is tried: it need not be installed elsewhere.
        from facetmesh.runners.engines.onnxruntime import OnnxRuntimeModel  # noqa: PLC0415

        model = OnnxRuntimeModel(_onnx(), context.setting, None)
    image = np.zeros((1, 3, _SIDE, _SIDE), np.float32)
    times = []
    for _run in range(_RUNS):
        began = time.perf_counter()
        model.infer(image)
        times.append(time.perf_counter() - began)
    return Reply({"ms": min(times) * 1000})


def _layers() -> Iterator[tuple[NDArray[np.float32], int]]:
    """Weights and stride of convolutions, as they make up most of a detector's work."""
    random = np.random.default_rng(0)
    for layer in range(_LAYERS):
        inputs, stride = (3, 2) if layer == 0 else (_CHANNELS, 1 + layer % 2)
        yield random.standard_normal((_CHANNELS, inputs, 3, 3)).astype(np.float32) / np.float32(3 * inputs), stride


def _net() -> Any:
    """They as OpenVINO's model."""
    parameter = ops.parameter((1, 3, _SIDE, _SIDE), ov.Type.f32)
    node = parameter
    for weights, stride in _layers():
        node = ops.relu(
            ops.convolution(node, ops.constant(weights), [stride, stride], [1, 1], [1, 1], [1, 1])
        )
    return ov.Model([node], [parameter])


def _onnx() -> bytes:
    """They as an ONNX file."""
    import onnx  # noqa: PLC0415 - as above
    from onnx import helper, numpy_helper  # noqa: PLC0415 - as above

    nodes, weights, name = [], [], "image"
    for index, (values, stride) in enumerate(_layers()):
        weights.append(numpy_helper.from_array(values, f"w{index}"))
        nodes += [
            helper.make_node("Conv", [name, f"w{index}"], [f"c{index}"], strides=[stride] * 2, pads=[1] * 4),
            helper.make_node("Relu", [f"c{index}"], [f"r{index}"]),
        ]
        name = f"r{index}"
    kind = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes, "trial", [helper.make_tensor_value_info("image", kind, [1, 3, _SIDE, _SIDE])],
        [helper.make_tensor_value_info(name, kind, None)], weights,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    return bytes(model.SerializeToString())


TASKS: Mapping[str, Task] = {"measure": measure}
