"""The inference engine, for programs that run in a runner's child.

OpenVINO, which reads ONNX and TensorFlow Lite files as they are. Never import
this in a service process: an engine can end its process (see `probe`).
"""

from __future__ import annotations

import hashlib
import queue
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import openvino as ov
from openvino.preprocess import PrePostProcessor

from facetmesh.kit.errors import FailedPrecondition

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from facetmesh.runners.settings import EngineSetting

Shape = tuple[int | None, ...]
"""A tensor's dimensions; None where the model leaves one open."""


@dataclass(frozen=True, slots=True)
class ImageInput:
    """Makes a model take (1, H, W, 3) uint8 RGB images; its own graph converts them.

    The model sees (value - mean) / scale, in the layout it was made for.
    """

    height: int
    """Rows of the images."""
    width: int
    """Columns of the images."""
    mean: float = 0.0
    """Subtracted from each value, 0 to 255."""
    scale: float = 255.0
    """Each value is divided by it then."""


class Model:
    """A model with one input, compiled for this machine; `infer` may be called on several threads.

    Args:
        compiled: The engine's model.
    """

    def __init__(self, compiled: Any) -> None:
        self.outputs: dict[str, Shape] = {port.any_name: _shape(port) for port in compiled.outputs}
        """The outputs' names and shapes."""
        self._compiled = compiled
        # A request holds its results until it is used again, so each call takes one for itself.
        self._requests: queue.LifoQueue[Any] = queue.LifoQueue()

    def infer(self, array: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Runs the model once.

        Args:
            array: The input, of the model's shape and type; with `ImageInput`,
                (1, H, W, 3) uint8.

        Returns:
            Each output's array, by name; the caller's own.
        """
        with self._request() as request:
            results = request.infer([array], share_inputs=True)
            return {port.any_name: np.array(value) for port, value in results.items()}

    @contextmanager
    def _request(self) -> Iterator[Any]:
        try:
            request = self._requests.get_nowait()
        except queue.Empty:
            request = self._compiled.create_infer_request()
        try:
            yield request
        finally:
            self._requests.put(request)


class Graph:
    """A model that has been read and not yet compiled.

    Args:
        model: The engine's model.
    """

    def __init__(self, model: Any) -> None:
        self.inputs: dict[str, Shape] = {port.any_name: _shape(port) for port in model.inputs}
        """The inputs' names and shapes."""
        self.outputs: dict[str, Shape] = {port.any_name: _shape(port) for port in model.outputs}
        """The outputs' names and shapes."""
        self.metadata: Mapping[str, str] = _metadata(model)
        """What the file says of itself: an ONNX file's metadata properties."""
        self._model = model

    def compile(self, setting: EngineSetting, image: ImageInput | None = None) -> Model:
        """Compiles it; the graph is used up.

        Args:
            setting: How the engine uses the CPU.
            image: Makes the model take images; without it, it takes what its
                file says.

        Raises:
            FailedPrecondition: MODEL_UNREADABLE: the engine cannot run it.
        """
        try:
            model = self._model if image is None else _with_image_input(self._model, image)
            return compile_model(model, setting)
        except RuntimeError as error:
            raise _unreadable() from error


def read_model(path: Path, *, sha256: str | None = None) -> Graph:
    """Reads a model's file, .onnx or .tflite.

    Args:
        path: The file.
        sha256: What its SHA-256 must be, in hex.

    Raises:
        FailedPrecondition: MODEL_CHANGED: it is another file by now;
            MODEL_UNREADABLE: it cannot be read.
    """
    try:
        if sha256 is not None and hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            raise FailedPrecondition("The model's file has changed since it was registered.", reason="MODEL_CHANGED")
        return Graph(ov.Core().read_model(path))
    except (OSError, RuntimeError) as error:
        raise _unreadable() from error


def open_model(path: Path, setting: EngineSetting, *, sha256: str | None = None) -> Model:
    """Reads and compiles a model's file; raises what `read_model` and `Graph.compile` do."""
    return read_model(path, sha256=sha256).compile(setting)


def compile_model(model: Any, setting: EngineSetting) -> Model:
    """Compiles the engine's own kind of model; raises RuntimeError where it cannot."""
    return Model(ov.Core().compile_model(model, "CPU", _properties(setting)))


def _with_image_input(model: Any, image: ImageInput) -> Any:
    (shape,) = (_shape(port) for port in model.inputs)
    planar = shape[1] == 3  # noqa: PLR2004 - the colours
    height, width = image.height, image.width
    model.reshape((1, 3, height, width) if planar else (1, height, width, 3))
    processor = PrePostProcessor(model)
    entry = processor.input()
    entry.tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    entry.model().set_layout(ov.Layout("NCHW" if planar else "NHWC"))
    entry.preprocess().convert_element_type(ov.Type.f32).mean(image.mean).scale(image.scale)
    return processor.build()


def _properties(setting: EngineSetting) -> dict[str, Any]:
    # Unpinned: the runners of other tenants want the same cores.
    properties: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "ENABLE_CPU_PINNING": False}
    if setting.precision is not None:
        properties["INFERENCE_PRECISION_HINT"] = setting.precision
    return properties


def _shape(port: Any) -> Shape:
    return tuple(None if dimension.is_dynamic else dimension.get_length() for dimension in port.get_partial_shape())


def _metadata(model: Any) -> dict[str, str]:
    if not model.has_rt_info("framework"):
        return {}
    return {key: str(value) for key, value in model.get_rt_info("framework").value.items()}


def _unreadable() -> FailedPrecondition:
    return FailedPrecondition("The model's file cannot be read.", reason="MODEL_UNREADABLE")
