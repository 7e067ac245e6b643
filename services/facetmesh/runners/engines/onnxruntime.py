"""ONNX Runtime: for GPUs, by CUDA or TensorRT, and for CPUs where OpenVINO does not live."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

from facetmesh.runners.engines.base import Plans, unsupported_input
from facetmesh.runners.stopwatch import part

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from facetmesh.runners.engines.base import ImageInput, Shape
    from facetmesh.runners.settings import EngineSetting

PROVIDERS = {
    "cpu": ["CPUExecutionProvider"],
    "cuda": ["CUDAExecutionProvider"],
    # What TensorRT cannot run goes to CUDA, within one inference.
    "tensorrt": ["TensorrtExecutionProvider", "CUDAExecutionProvider"],
}
"""ONNX Runtime's names of what runs a model, by the setting's device."""
_TYPES = {
    "tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64, "tensor(uint8)": np.uint8,
}  # fmt: skip


class OnnxRuntimeModel:
    """A session; `engines.base.Model` says what it does.

    Args:
        path: The ONNX file, or its content.
        setting: Which device it runs on.
        image: Makes it take images.

    Raises:
        RuntimeError: The file cannot be run on the device.
    """

    def __init__(self, path: Path | bytes, setting: EngineSetting, image: ImageInput | None) -> None:
        self._image = image
        self._plans = Plans(lambda cores: _open(path, setting, cores))
        session = self._plans.get(1)
        (self._input,) = session.get_inputs()
        if image is not None and self._input.type not in _TYPES:
            raise unsupported_input(self._input.type)
        self._planar = self._input.shape[1] == 3  # noqa: PLR2004 - the colours
        self.outputs: Mapping[str, Shape] = {
            port.name: tuple(size if isinstance(size, int) else None for size in port.shape)
            for port in session.get_outputs()
        }
        open_batch = not isinstance(self._input.shape[0], int)
        self.batches = image is not None and open_batch and all(shape[:1] == (None,) for shape in self.outputs.values())

    def infer(self, array: NDArray[Any], *, cores: int = 0) -> dict[str, NDArray[Any]]:
        """Runs the model once."""
        if self._image is not None:
            array = self._converted(array, self._image)
        with part("infer"):
            results = self._plans.get(cores).run(None, {self._input.name: array})
        return dict(zip(self.outputs, results, strict=True))

    def _converted(self, array: NDArray[Any], image: ImageInput) -> NDArray[Any]:
        kind = _TYPES[self._input.type]
        values: NDArray[Any] = array
        if kind != np.uint8:
            values = (array.astype(np.float32) - np.float32(image.mean)) / np.float32(image.scale)
        if self._planar:
            values = np.ascontiguousarray(values.transpose(0, 3, 1, 2))
        return values.astype(kind, copy=False)


def session_options(cores: int = 0) -> Any:
    """How sessions share the machine.

    Args:
        cores: How many an inference may use; 0 for all.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = cores
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    # A spinning thread takes a core from another tenant.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _open(path: Path | bytes, setting: EngineSetting, cores: int) -> Any:
    wanted = PROVIDERS[setting.device]
    options = session_options(cores)
    try:
        session = ort.InferenceSession(path, options, providers=wanted)
    except Exception as error:
        # Its errors have no base of their own: Fail, InvalidGraph, NotImplemented, ValueError …
        raise RuntimeError(str(error)) from error
    if session.get_providers()[0] != wanted[0]:
        # It would go on, on the CPU.
        raise RuntimeError(f"{wanted[0]} is not there")
    return session
