"""TorchScript, run by torch on the CPU or a card: for models that do not become ONNX.

Torch's own reader takes a TorchScript file apart, in C++: data, and code in
TorchScript's language, for TorchScript's interpreter. No pickle of Python's is
read, here or below. The language has loops and files all the same: what runs it
is a runner, which is confined and killed when its time is over.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from facetmesh.kit.errors import FailedPrecondition
from facetmesh.runners.engines.base import machine_cores
from facetmesh.runners.quiet import import_torch
from facetmesh.runners.stopwatch import part

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from facetmesh.runners.engines.base import ImageInput, Shape
    from facetmesh.runners.settings import EngineSetting

_METADATA = "config.txt"
"""Where ultralytics' export writes what the model is, as JSON."""
_MAX_SIDE = 4096
_WARM_UP = 2
"""The interpreter watches the first run, and makes the second its own."""


class TorchScriptSource:
    """A model's file, read, and run once to see what comes out.

    Args:
        path: The file.

    Raises:
        FailedPrecondition: TORCH_MISSING; MODEL_UNSUPPORTED: it does not say its input's size.
        RuntimeError: Torch cannot read or run it.
    """

    def __init__(self, path: Path) -> None:
        self._torch = import_torch()
        extra = {_METADATA: b""}
        self._module = self._torch.jit.load(str(path), map_location="cpu", _extra_files=extra).eval()
        told = _told(extra[_METADATA])
        self.metadata = {name: str(value) for name, value in told.items()}
        """What the file says of itself, as an ONNX file of ultralytics' has it."""
        shape = (1, 3, *_size(told))
        self.inputs: Mapping[str, Shape] = {"images": shape}
        """The one input: its shape is the metadata's, because TorchScript knows none."""
        model = TorchScriptModel(self._torch, self._module, "cpu", None)
        outputs = model.infer(np.zeros(shape, np.float32))
        self.outputs: Mapping[str, Shape] = {name: output.shape for name, output in outputs.items()}
        """The outputs' names, by their order, and shapes."""

    def compile(self, setting: EngineSetting, image: ImageInput | None) -> TorchScriptModel:
        """Moves it to where the setting says; raises RuntimeError where that fails."""
        device = "cpu" if setting.device == "cpu" else "cuda"
        model = TorchScriptModel(self._torch, self._module.to(device), device, image)
        model.outputs = self.outputs
        for _ in range(_WARM_UP):
            model.infer(_zeros(self.inputs["images"], image))
        return model


class TorchScriptModel:
    """A module on a device; `engines.base.Model` says what it does.

    Args:
        torch: The library.
        module: The module, already there.
        device: "cpu" or "cuda".
        image: Makes it take images.
    """

    outputs: Mapping[str, Shape]
    batches = False
    """What was traced with one image knows of no more."""

    def __init__(self, torch: Any, module: Any, device: str, image: ImageInput | None) -> None:
        self._torch = torch
        self._module = module
        self._device = device
        self._image = image

    def infer(self, array: NDArray[Any], *, cores: int = 0) -> dict[str, NDArray[Any]]:
        """Runs the model once."""
        torch = self._torch
        with part("infer"), torch.inference_mode():
            # Of this thread's calls only, with the OpenMP that torch's wheels have.
            torch.set_num_threads(min(cores, machine_cores()) or machine_cores())
            # A copy: torch does not promise to leave what it reads alone.
            tensor = torch.tensor(array, device=self._device)
            if self._image is not None:
                tensor = (tensor.permute(0, 3, 1, 2).float() - self._image.mean) / self._image.scale
            results = list(_tensors(torch, self._module(tensor)))
            return {f"output{index}": result.float().cpu().numpy() for index, result in enumerate(results)}


def _tensors(torch: Any, found: Any) -> Iterator[Any]:
    """The tensors in what a module returns: one, or tuples of them."""
    if isinstance(found, torch.Tensor):
        yield found
    elif isinstance(found, list | tuple):
        for one in found:
            yield from _tensors(torch, one)
    else:
        raise RuntimeError(f"it returns a {type(found).__name__}")  # noqa: TRY004 - as torch says what it cannot do


def _told(text: bytes) -> dict[str, Any]:
    """The metadata; classes' ids are texts in JSON, and numbers in the ONNX file's."""
    try:
        told = json.loads(text or "{}")
        if isinstance(told.get("names"), dict):
            told["names"] = {int(index): name for index, name in told["names"].items()}
    except (ValueError, AttributeError, RecursionError):
        return {}
    return dict(told)


def _size(told: Mapping[str, Any]) -> tuple[int, int]:
    match told.get("imgsz"):
        case [int(height), int(width)] if 0 < height <= _MAX_SIDE and 0 < width <= _MAX_SIDE:
            return height, width
    raise FailedPrecondition(
        f"The TorchScript file does not say how large its input is: expected is imgsz in {_METADATA}, as "
        "ultralytics' export writes it.",
        reason="MODEL_UNSUPPORTED",
    )


def _zeros(shape: Shape, image: ImageInput | None) -> NDArray[Any]:
    if image is not None:
        return np.zeros((1, image.height, image.width, 3), np.uint8)
    return np.zeros([size or 1 for size in shape], np.float32)
