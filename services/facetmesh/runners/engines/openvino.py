"""OpenVINO: the fastest on a CPU, and the one that reads the files."""

from __future__ import annotations

import queue
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import openvino as ov
from openvino.preprocess import PrePostProcessor

from facetmesh.runners.engines.base import Plans, machine_cores, unsupported_input
from facetmesh.runners.stopwatch import part

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from facetmesh.runners.engines.base import ImageInput, Shape
    from facetmesh.runners.settings import EngineSetting

_COPIED_BYTES = 128 << 20
"""The most memory that copies of a model's weights may take together."""
_SIZED_BYTES = 128 << 20
"""The largest weights of a model that is compiled for several sizes, of which each has them once more."""


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

    def leaves_open(self, height: int, width: int) -> bool:
        """Whether its file leaves its input's size open, and what follows from that too: an export may have that fixed.

        Not of a large model, of which several would take too much memory.

        Args:
            height: Rows of the images that it would be compiled for.
            width: Their columns.
        """
        (shape,) = self.inputs.values()
        is_open = None in (shape[2:] if _is_planar(shape) else shape[1:3])
        if not is_open or _weights_bytes(self._model) > _SIZED_BYTES:
            return False
        model = self._model.clone()
        try:
            _reshape(model, height, width)
        except RuntimeError:
            return False
        return _all_shapes_known(model)

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


class _Plan(Protocol):
    """A model compiled for a number of cores."""

    @property
    def outputs(self) -> Mapping[str, Shape]:
        """The outputs' names and shapes."""
        ...

    def infer(self, array: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Runs it once."""
        ...


class Compiled:
    """A model compiled once, for as many calls at a time as it has streams.

    Args:
        compiled: OpenVINO's.
    """

    def __init__(self, compiled: Any) -> None:
        self.outputs: Mapping[str, Shape] = {port.any_name: _shape(port) for port in compiled.outputs}
        self._compiled = compiled
        self._names = [port.any_name for port in compiled.outputs]
        # A request holds its results until it is used again, so each call takes one for itself.
        self._requests: list[Any] = []

    def infer(self, array: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Runs it once."""
        try:
            request = self._requests.pop()
        except IndexError:
            request = self._compiled.create_infer_request()
        try:
            # No list of one array, and no look-ups in the results: together they take 0.1 ms.
            results = request.infer(array, share_inputs=True, share_outputs=True)
            return {name: np.array(result) for name, result in zip(self._names, results.values(), strict=True)}
        finally:
            self._requests.append(request)


class Copies:
    """A model compiled for each call at a time, whose thread runs it.

    One with several streams hands each call to a thread of its own and back. Where other processes want the cores too,
    Linux leaves one idle after some of those changes for milliseconds, with threads that wait for the other: on two
    cores without copies 6 % of the time, with them 3 %, for 4 to 9 % more images a second.

    Args:
        make: Compiles it; the first copy at once, another in the background when a call finds all in use.
        most: How many copies there may be. Further calls wait.
    """

    def __init__(self, make: Callable[[], _Plan], most: int) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._left = most - 1
        first = make()
        self.outputs = first.outputs
        self._idle: queue.LifoQueue[_Plan] = queue.LifoQueue()
        self._idle.put(first)

    def infer(self, array: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Runs a copy that no other call runs."""
        copy = self._take()
        try:
            return copy.infer(array)
        finally:
            self._idle.put(copy)

    def _take(self) -> _Plan:
        with suppress(queue.Empty):
            return self._idle.get_nowait()
        with self._lock:
            if self._left:
                self._left -= 1
                threading.Thread(target=lambda: self._idle.put(self._make()), daemon=True).start()
        return self._idle.get()


def compile_model(model: Any, setting: EngineSetting, *, batches: bool = False) -> OpenVinoModel:
    """Compiles OpenVINO's own kind of model; raises RuntimeError where it cannot."""
    core = ov.Core()
    copied = _may_be_copied(model)

    def compiled(streams: int, threads: int) -> Compiled:
        return Compiled(core.compile_model(model, "CPU", _properties(setting, streams, threads)))

    def plan(cores: int) -> _Plan:
        if cores > 1:
            return compiled(1, cores)
        # The scheduler sees to it that there are no more calls than cores.
        if copied:
            return Copies(lambda: compiled(1, 1), machine_cores())
        return compiled(machine_cores(), machine_cores())

    return OpenVinoModel(Plans(plan), batches=batches)


def _with_open_batch(model: Any, image: ImageInput, most: int) -> Any:
    """The model for up to so many images; None where it is made for one."""
    try:
        opened = _with_image_input(model.clone(), image, ov.Dimension(1, most))
    except RuntimeError:
        return None
    return opened if all(_shape(port)[:1] == (None,) for port in opened.outputs) else None


def _with_image_input(model: Any, image: ImageInput, batch: Any = 1) -> Any:
    (shape,) = (_shape(port) for port in model.inputs)
    planar = _is_planar(shape)
    (kind,) = (port.get_element_type() for port in model.inputs)
    if not kind.is_real() and kind != ov.Type.u8:
        raise unsupported_input(kind.get_type_name())
    _reshape(model, image.height, image.width, batch)
    processor = PrePostProcessor(model)
    entry = processor.input()
    entry.tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    entry.model().set_layout(ov.Layout("NCHW" if planar else "NHWC"))
    if kind.is_real():
        entry.preprocess().convert_element_type(ov.Type.f32).mean(image.mean).scale(image.scale)
    return processor.build()


def _reshape(model: Any, height: int, width: int, batch: Any = 1) -> None:
    """Fixes the size of a model's one input, an image; raises RuntimeError where something else does not fit then."""
    (shape,) = (_shape(port) for port in model.inputs)
    planar = _is_planar(shape)
    model.reshape(ov.PartialShape([batch, 3, height, width] if planar else [batch, height, width, 3]))


def _properties(setting: EngineSetting, streams: int, threads: int) -> dict[str, Any]:
    # Pinned where a call has all cores: else Linux often wakes the engine's second thread on the core of the first, to
    # wait there for up to a tick while another is idle. Unpinned elsewhere: other tenants' runners want the same cores.
    properties: dict[str, Any] = {
        "ENABLE_CPU_PINNING": streams < threads, "NUM_STREAMS": streams, "INFERENCE_NUM_THREADS": threads,
    }  # fmt: skip
    if setting.precision is not None:
        properties["INFERENCE_PRECISION_HINT"] = setting.precision
    return properties


def _may_be_copied(model: Any) -> bool:
    """Whether each call may have a copy: where the weights are small, and all shapes are known before it runs.

    In a copy, with one stream and one thread, OpenVINO 2026.4 does not report that shapes found as it runs do not fit.
    """
    if not _all_shapes_known(model):
        return False
    return (machine_cores() - 1) * _weights_bytes(model) <= _COPIED_BYTES


def _weights_bytes(model: Any) -> int:
    return sum(node.get_byte_size() for node in model.get_ops() if node.get_type_name() == "Constant")


def _all_shapes_known(model: Any) -> bool:
    """Whether there are no shapes that are found only as it runs."""
    return not any(port.get_partial_shape().is_dynamic for node in model.get_ops() for port in node.outputs())


def _is_planar(shape: Shape) -> bool:
    return shape[1] == 3  # noqa: PLR2004 - the colours


def _shape(port: Any) -> Shape:
    return tuple(None if dimension.is_dynamic else dimension.get_length() for dimension in port.get_partial_shape())


def _metadata(model: Any) -> dict[str, str]:
    if not model.has_rt_info("framework"):
        return {}
    return {key: str(value) for key, value in model.get_rt_info("framework").value.items()}
