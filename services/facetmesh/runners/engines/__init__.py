"""The inference engines, for programs that run in a runner's child.

A file is read by OpenVINO, which knows ONNX and TensorFlow Lite, and compiled for
the engine that the machine's setting names; TorchScript is torch's from the
beginning to the end. Never import this in a service process: an engine can end
its process (see `probe`).
"""

from __future__ import annotations

import hashlib
import zipfile
from typing import TYPE_CHECKING, Literal

from facetmesh.kit.errors import FailedPrecondition
from facetmesh.runners.engines.base import ImageInput, Model, Shape
from facetmesh.runners.engines.batching import Batching
from facetmesh.runners.engines.openvino import Source

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from facetmesh.runners.engines.torchscript import TorchScriptSource
    from facetmesh.runners.settings import EngineSetting

__all__ = ["Graph", "ImageInput", "Model", "Shape", "file_kind", "open_model", "read_model"]

_ZIP = b"PK\3\4"
_REFUSALS = (RuntimeError, UnicodeDecodeError)
"""What an engine raises; the second where its text quotes a broken file, byte for byte."""


class Graph:
    """A model that has been read and not yet compiled.

    Args:
        path: Its file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kind = file_kind(path)
        self._source = _torchscript(path) if self._kind == "torchscript" else Source(path)
        self.inputs: Mapping[str, Shape] = self._source.inputs
        """The inputs' names and shapes."""
        self.outputs: Mapping[str, Shape] = self._source.outputs
        """The outputs' names and shapes."""
        self.metadata: Mapping[str, str] = self._source.metadata
        """What the file says of itself: an ONNX file's metadata properties, or what another has of them."""

    def leaves_open(self, setting: EngineSetting, height: int, width: int) -> bool:
        """Whether its file leaves its input's size open, so that it can be compiled for these images as for others.

        Args:
            setting: What it would be compiled with. Where images run together, which have one size, it is not.
            height: Rows of the smallest images.
            width: Their columns.
        """
        alone = setting.engine == "openvino" and setting.batch == 1
        return alone and isinstance(self._source, Source) and self._source.leaves_open(height, width)

    def compile(self, setting: EngineSetting, image: ImageInput | None = None) -> Model:
        """Compiles it; the graph is used up.

        Args:
            setting: Which engine, and how it uses the machine.
            image: Makes the model take images; without it, it takes what its
                file says.

        Raises:
            FailedPrecondition: MODEL_UNREADABLE: the engine cannot run it.
        """
        try:
            if setting.engine == "onnxruntime" and self._kind == "onnx":
                # Only where it is chosen: it need not be installed elsewhere.
                from facetmesh.runners.engines.onnxruntime import OnnxRuntimeModel  # noqa: PLC0415

                model: Model = OnnxRuntimeModel(self._path, setting, image)
            else:
                model = self._source.compile(setting, image)
        except _REFUSALS as error:
            raise _unreadable() from error
        return Batching(model, most=setting.batch) if setting.batch > 1 and model.batches else model


def file_kind(path: Path) -> Literal["onnx", "tflite", "torchscript"]:
    """What a model's file is: TorchScript by its content, since names say little of what strangers bring.

    Args:
        path: The file: .tflite, or .onnx for all else.

    Raises:
        OSError: It is not there.
    """
    with path.open("rb") as file:
        try:
            # A checkpoint is such an archive too, but has no constants.
            torchscript = file.read(4) == _ZIP and any(
                name.endswith("/constants.pkl") and name.count("/") == 1 for name in zipfile.ZipFile(file).namelist()
            )
        except (zipfile.BadZipFile, ValueError, NotImplementedError):
            torchscript = False
    if torchscript:
        return "torchscript"
    return "tflite" if path.suffix == ".tflite" else "onnx"


def read_model(path: Path, *, sha256: str | None = None) -> Graph:
    """Reads a model's file: ONNX, TensorFlow Lite or TorchScript.

    Args:
        path: The file.
        sha256: What its SHA-256 must be, in hex.

    Raises:
        FailedPrecondition: MODEL_CHANGED: it is another file by now;
            MODEL_UNREADABLE: it cannot be read; TORCH_MISSING.
    """
    try:
        if sha256 is not None and hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            raise FailedPrecondition("The model's file has changed since it was registered.", reason="MODEL_CHANGED")
        return Graph(path)
    except (OSError, *_REFUSALS) as error:
        raise _unreadable() from error


def open_model(path: Path, setting: EngineSetting, *, sha256: str | None = None) -> Model:
    """Reads and compiles a model's file; raises what `read_model` and `Graph.compile` do."""
    return read_model(path, sha256=sha256).compile(setting)


def _torchscript(path: Path) -> TorchScriptSource:
    # Only where it is brought: torch need not be installed elsewhere.
    from facetmesh.runners.engines.torchscript import TorchScriptSource  # noqa: PLC0415

    return TorchScriptSource(path)


def _unreadable() -> FailedPrecondition:
    return FailedPrecondition("The model's file cannot be read.", reason="MODEL_UNREADABLE")
