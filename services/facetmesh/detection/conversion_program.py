"""The program of the process in which a checkpoint of ultralytics' becomes ONNX, and which ends with that.

A checkpoint is a pickle: reading it runs whatever code it holds. So it happens
here and nowhere else: with no network, no files to write, no other tenant, and
nothing left afterwards but the ONNX file, which is then checked like any other.
`weights_only` would not do: a checkpoint of ultralytics' is a whole pickled model.
"""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Any

from facetmesh.detection.hints import LARGEST_SIDE
from facetmesh.kit.errors import FailedPrecondition
from facetmesh.runners.quiet import import_torch
from facetmesh.runners.tasks import Reply

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from facetmesh.runners.tasks import Context, Task

_OPSET = 17
_DEFAULT_SIZE = 640


def convert(_: Context, __: Mapping[str, Any], blobs: Sequence[bytes]) -> Reply:
    """Replies the ONNX file of the checkpoint that is the one blob, as the one blob."""
    os.environ |= {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "YOLO_VERBOSE": "false"}
    torch = import_torch()
    try:
        # The reason why this process is thrown away.
        checkpoint = torch.load(io.BytesIO(blobs[0]), map_location="cpu", weights_only=False)
        model = (checkpoint.get("ema") or checkpoint["model"]).float().eval()
        head = model.model[-1]
        names = dict(model.names)
    except Exception as error:
        raise FailedPrecondition("The file is no checkpoint of ultralytics'.", reason="CONVERT_FAILED") from error
    head.export, head.format, head.dynamic = True, "onnx", False
    height, width = _size(getattr(model, "args", None) or checkpoint.get("train_args") or {})
    image = torch.zeros(1, 3, height, width)
    for parameter in model.parameters():
        parameter.requires_grad = False
    file = io.BytesIO()
    with torch.no_grad():
        model(image)
        torch.onnx.export(
            model, (image,), file, opset_version=_OPSET, input_names=["images"], dynamo=False, do_constant_folding=True,
            output_names=["output0", "output1"] if getattr(model, "task", "") == "segment" else ["output0"],
        )  # fmt: skip
    return Reply(blobs=[_described(file.getvalue(), names, getattr(model, "task", ""), head, (height, width))])


def _size(arguments: Any) -> tuple[int, int]:
    """Height and width that the model was trained with."""
    size = arguments.get("imgsz", _DEFAULT_SIZE) if isinstance(arguments, dict) else _DEFAULT_SIZE
    side = max(size) if isinstance(size, list | tuple) else size
    side = side if isinstance(side, int) and 0 < side <= LARGEST_SIDE else _DEFAULT_SIZE
    return side, side


def _described(file: bytes, names: Mapping[int, str], task: str, head: Any, size: tuple[int, int]) -> bytes:
    """The file with the metadata that ultralytics' own export writes."""
    import onnx  # noqa: PLC0415 - only here

    model = onnx.load_from_string(file)
    metadata = {"names": str(names), "task": task, "imgsz": str(list(size))}
    if hasattr(head, "kpt_shape"):
        metadata["kpt_shape"] = str(list(head.kpt_shape))
    onnx.helper.set_model_props(model, metadata)
    return model.SerializeToString()


TASKS: Mapping[str, Task] = {"convert": convert}
