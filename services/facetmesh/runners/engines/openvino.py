"""OpenVINO: the fastest on a CPU, and the one that reads the files."""

from __future__ import annotations

import queue
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import openvino as ov
from openvino.preprocess import PrePostProcessor

from facetmesh.runners.engines.base import Plans, machine_cores, unsupported_input
from facetmesh.runners.stopwatch import part

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from facetmesh.runners.engines.base import ImageInput, Shape
    from facetmesh.runners.settings import EngineSetting


class Source:
    """A model's file, read; raises RuntimeError where that fails.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._model = ov.Core().read_model(path)
        self.inputs = {port.any_name: _shape(port) for port in self._model.inputs}
        """The inputs' names and shapes."""
        self.outputs = {port.any_name: _shape(port) for port in self._model.outputs}
        """The outputs' names and shapes."""
        self.metadata = _metadata(self._model)
        """What the file says of itself."""

    def compile(self, setting: EngineSetting, image: ImageInput | None) -> OpenVinoModel:
        """Compiles it; raises RuntimeError where that fails."""
        if image is None:
            return compile_model(self._model, setting)
        if setting.batch > 1 and (model := _with_open_batch(self._model, image, setting.batch)) is not None:
            return compile_model(model, setting, batches=True)
        return compile_model(_with_image_input(self._model, image), setting)


class OpenVinoModel:
    """A compiled model; `engines.base.Model` says what it does.

    Args:
        plans: What is compiled, by cores.
        batches: Whether it takes several images at once.
    """

    def __init__(self, plans: Plans[_Plan], *, batches: bool) -> None:
        self.batches = batches
        self.outputs: Mapping[str, Shape] = plans.get(1).outputs
        self._plans = plans

    def infer(self, array: NDArray[Any], *, cores: int = 0) -> dict[str, NDArray[Any]]:
        """Runs the model once."""
        with part("infer"):
            return self._plans.get(cores).infer(array)


class _Plan:
    """A model compiled for a number of cores."""

    def __init__(self, compiled: Any) -> None:
        self.outputs = {port.any_name: _shape(port) for port in compiled.outputs}
        self._compiled = compiled
        self._names = [port.any_name for port in compiled.outputs]
        # A request holds its results until it is used again, so each call takes one for itself.
        self._requests: queue.LifoQueue[Any] = queue.LifoQueue()

    def infer(self, array: NDArray[Any]) -> dict[str, NDArray[Any]]:
        with self._request() as request:
            results = request.infer([array], share_inputs=True, share_outputs=True)
            return {name: np.array(results[index]) for index, name in enumerate(self._names)}

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


def compile_model(model: Any, setting: EngineSetting, *, batches: bool = False) -> OpenVinoModel:
    """Compiles OpenVINO's own kind of model; raises RuntimeError where it cannot."""
    core = ov.Core()
    plans = Plans(lambda cores: _Plan(core.compile_model(model, "CPU", _properties(setting, cores))))
    return OpenVinoModel(plans, batches=batches)


def _with_open_batch(model: Any, image: ImageInput, most: int) -> Any:
    """The model for up to so many images; None where it is made for one."""
    try:
        opened = _with_image_input(model.clone(), image, ov.Dimension(1, most))
    except RuntimeError:
        return None
    return opened if all(_shape(port)[:1] == (None,) for port in opened.outputs) else None


def _with_image_input(model: Any, image: ImageInput, batch: Any = 1) -> Any:
    (shape,) = (_shape(port) for port in model.inputs)
    planar = shape[1] == 3  # noqa: PLR2004 - the colours
    height, width = image.height, image.width
    (kind,) = (port.get_element_type() for port in model.inputs)
    if not kind.is_real() and kind != ov.Type.u8:
        raise unsupported_input(kind.get_type_name())
    model.reshape(ov.PartialShape([batch, 3, height, width] if planar else [batch, height, width, 3]))
    processor = PrePostProcessor(model)
    entry = processor.input()
    entry.tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    entry.model().set_layout(ov.Layout("NCHW" if planar else "NHWC"))
    if kind.is_real():
        entry.preprocess().convert_element_type(ov.Type.f32).mean(image.mean).scale(image.scale)
    return processor.build()


def _properties(setting: EngineSetting, cores: int) -> dict[str, Any]:
    # Unpinned: the runners of other tenants want the same cores.
    properties: dict[str, Any] = {"ENABLE_CPU_PINNING": False}
    if cores == 1:
        # A thread for each call; the scheduler sees to it that there are no more calls than cores.
        properties |= {"NUM_STREAMS": machine_cores(), "INFERENCE_NUM_THREADS": machine_cores()}
    else:
        properties |= {"NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": cores}
    if setting.precision is not None:
        properties["INFERENCE_PRECISION_HINT"] = setting.precision
    return properties


def _shape(port: Any) -> Shape:
    return tuple(None if dimension.is_dynamic else dimension.get_length() for dimension in port.get_partial_shape())


def _metadata(model: Any) -> dict[str, str]:
    if not model.has_rt_info("framework"):
        return {}
    return {key: str(value) for key, value in model.get_rt_info("framework").value.items()}
