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
    from collections.abc import Mapping, Sequence

    from facetmesh.runners.tasks import Context, Task

_SIDE = 160
_CHANNELS = 64
_LAYERS = 5
_RUNS = 20


def measure(context: Context, _: Mapping[str, Any], __: Sequence[bytes]) -> Reply:
    """Returns `ms`, the least time of one inference, in milliseconds."""
    model = compile_model(_net(), context.setting)
    image = np.zeros((1, 3, _SIDE, _SIDE), np.float32)
    times = []
    for _run in range(_RUNS):
        began = time.perf_counter()
        model.infer(image)
        times.append(time.perf_counter() - began)
    return Reply({"ms": min(times) * 1000})


def _net() -> Any:
    """Convolutions, as they make up most of a detector's work."""
    random = np.random.default_rng(0)
    parameter = ops.parameter((1, 3, _SIDE, _SIDE), ov.Type.f32)
    node = parameter
    for layer in range(_LAYERS):
        inputs, stride = (3, 2) if layer == 0 else (_CHANNELS, 1 + layer % 2)
        weights = random.standard_normal((_CHANNELS, inputs, 3, 3)).astype(np.float32) / (3 * inputs)
        node = ops.relu(
            ops.convolution(node, ops.constant(weights), [stride, stride], [1, 1], [1, 1], [1, 1])
        )
    return ov.Model([node], [parameter])


TASKS: Mapping[str, Task] = {"measure": measure}
