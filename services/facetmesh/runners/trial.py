"""The program with which `probe` tries out a setting: a small net, how fast it runs, and whether batches gain."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import openvino as ov
from openvino import opset13 as ops

from facetmesh.runners.engines.base import machine_cores
from facetmesh.runners.engines.openvino import compile_model
from facetmesh.runners.tasks import Reply

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from facetmesh.runners.engines import Model
    from facetmesh.runners.settings import EngineSetting
    from facetmesh.runners.tasks import Context, Task

_SIDE = 160
_CHANNELS = 64
_LAYERS = 5
_RUNS = 20
_SIZES = (4, 16)
_TRIES_S = 0.6
_ROUNDS = 16
_LONGEST_S = 5.0
"""What takes longer to try is not tried to its end: the machine has no time for it, and services wait to start."""
_GAIN = 0.8
"""A batch may take so much of what the same images take side by side: it makes each of them wait for the others."""
_SURE = 0.9
"""In so many of the rounds a batch must have gained."""


def measure(context: Context, _: Mapping[str, Any], __: Sequence[bytes]) -> Reply:
    """Returns `ms`, the least time of one inference, in milliseconds, and `batch`, how many are best run together."""
    model = _open(context.setting)
    image = _images(1)
    ms = 1000 * min(_seconds(lambda: model.infer(image)) for _run in range(_RUNS))
    return Reply({"ms": ms, "batch": _batch(context.setting, model)})


def _batch(setting: EngineSetting, model: Model) -> int:
    """The largest batch that gains enough; 1 for none."""
    best = 1
    for size in _SIZES:
        if not _gains(model, _open(replace(setting, batch=size)), size):
            break
        best = size
    return best


def _gains(model: Model, together: Model, size: int) -> bool:
    """Whether so many images are faster in one run than side by side, a core each; in turns, since others work."""
    image, images = _images(1), _images(size)
    ratios: list[float] = []

    def alone(_: int) -> object:
        return model.infer(image, cores=1)

    began = time.perf_counter()
    with ThreadPoolExecutor(machine_cores()) as threads:
        while len(ratios) < _ROUNDS or time.perf_counter() - began < _TRIES_S:
            if time.perf_counter() - began >= _LONGEST_S:
                return False
            alone_s = _seconds(lambda: list(threads.map(alone, range(size))))
            ratios.append(_seconds(lambda: together.infer(images)) / alone_s)
    return sure(ratios)


def sure(ratios: Sequence[float]) -> bool:
    """Whether batches gain, by what they took relative to the same images side by side, round by round.

    What else the machine does disturbs some rounds, either way; a gain of the device's shows in nearly all. In doubt
    there are no batches. The first half does not count: engines make their better plans meanwhile.
    """
    counted = ratios[len(ratios) // 2 :]
    return sum(ratio < _GAIN for ratio in counted) >= _SURE * len(counted)


def _open(setting: EngineSetting) -> Model:
    if setting.engine == "openvino":
        return compile_model(_net(setting.batch), setting)
    # Only where it is tried: it need not be installed elsewhere.
    from facetmesh.runners.engines.onnxruntime import OnnxRuntimeModel  # noqa: PLC0415

    return OnnxRuntimeModel(_onnx(setting.batch), setting, None)


def _images(count: int) -> NDArray[np.float32]:
    return np.zeros((count, 3, _SIDE, _SIDE), np.float32)


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _layers() -> Iterator[tuple[NDArray[np.float32], int]]:
    """Weights and stride of convolutions, as they make up most of a detector's work."""
    random = np.random.default_rng(0)
    for layer in range(_LAYERS):
        inputs, stride = (3, 2) if layer == 0 else (_CHANNELS, 1 + layer % 2)
        yield random.standard_normal((_CHANNELS, inputs, 3, 3)).astype(np.float32) / np.float32(3 * inputs), stride


def _net(most: int) -> Any:
    """They as OpenVINO's model, for up to so many images."""
    parameter = ops.parameter(ov.PartialShape([ov.Dimension(1, most), 3, _SIDE, _SIDE]), ov.Type.f32)
    node = parameter
    for weights, stride in _layers():
        node = ops.relu(
            ops.convolution(node, ops.constant(weights), [stride, stride], [1, 1], [1, 1], [1, 1])
        )
    return ov.Model([node], [parameter])


def _onnx(most: int) -> bytes:
    """They as an ONNX file, for one image or any number."""
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
        nodes, "trial", [helper.make_tensor_value_info("image", kind, ["n" if most > 1 else 1, 3, _SIDE, _SIDE])],
        [helper.make_tensor_value_info(name, kind, None)], weights,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    return bytes(model.SerializeToString())


TASKS: Mapping[str, Task] = {"measure": measure}
