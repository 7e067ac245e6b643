"""The program of the process in which a model's weights and activations become 8 bits wide, and which ends with that.

Post-training quantization by NNCF, with images of the tenant's for the ranges.
Of ONNX comes ONNX (with QuantizeLinear and DequantizeLinear), so that the result
is a file like any other, which is then checked like any other.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import numpy_helper

from facetmesh.detection import heads, onnx_rules, raw
from facetmesh.detection.hints import Hints
from facetmesh.kit.errors import FailedPrecondition
from facetmesh.runners.engines import file_kind, read_model
from facetmesh.runners.tasks import Reply

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from facetmesh.runners.tasks import Context, Task

_LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


def quantize(_: Context, arguments: Mapping[str, Any], blobs: Sequence[bytes]) -> Reply:
    """Replies the quantized ONNX file as the one blob.

    Arguments: `path`, `sha256` and `hints` of the model's file, which is ONNX. The
    blobs are image files to calibrate with.

    Raises:
        FailedPrecondition: QUANTIZATION_FAILED: the method does not get along with this model.
        InvalidArgument: An image is refused (`runners.images`).
    """
    path = Path(arguments["path"])
    if file_kind(path) != "onnx":
        raise FailedPrecondition("Only ONNX models can be quantized.", reason="QUANTIZATION_UNSUPPORTED")
    head = heads.of(read_model(path, sha256=arguments["sha256"]), Hints(**arguments["hints"]))
    model = onnx_rules.check(path.read_bytes())
    for index, node in enumerate(model.graph.node):
        # Names need not be there, nor be unique, and NNCF goes by them.
        node.name = f"{node.op_type}_{index}"
    weights = {tensor.name for tensor in model.graph.initializer}
    name = next(value.name for value in model.graph.input if value.name not in weights)
    # Laid out as the head knows it: the heads that are ONNX take planes.
    images = [{name: raw.image_input(data, head, (1, 3, *head.size))} for data in blobs]

    import nncf  # type: ignore[import-not-found] # noqa: PLC0415 - the extra [quantize]

    try:
        made: onnx.ModelProto = nncf.quantize(
            model,
            nncf.Dataset(images),
            subset_size=len(images),
            # Activations such as SiLU's are not symmetric.
            preset=nncf.QuantizationPreset.MIXED,
            ignored_scope=nncf.IgnoredScope(names=after_last_layers(model.graph), validate=False),
        )
    except Exception as error:
        raise FailedPrecondition(
            "This model cannot be quantized (NNCF does not know what to do with it).", reason="QUANTIZATION_FAILED"
        ) from error
    make_unsigned(made.graph)
    del made.metadata_props[:]
    made.metadata_props.extend(model.metadata_props)
    return Reply(blobs=[made.SerializeToString()])


def after_last_layers(graph: onnx.GraphProto) -> list[str]:
    """The names of the nodes behind the last layers with weights: a head's arithmetic, which stays in float.

    There boxes in pixels and confidences from 0 to 1 come into one tensor: with one scale of 256 steps for both,
    the confidences are lost. The convolution over a softmax by which YOLOv8 and its heirs read distances
    (distribution focal loss, Li et al., 2020) is such arithmetic too.
    """
    makers = {name: node for node in graph.node for name in node.output}
    found: dict[str, None] = {}
    left = [value.name for value in graph.output]
    while left:
        node = makers.get(left.pop())
        if node is None or node.name in found or (node.op_type in _LAYERS and not _over_softmax(node, makers)):
            continue
        found[node.name] = None
        left += node.input
    return list(found)


def make_unsigned(graph: onnx.GraphProto) -> None:
    """Makes UINT8 activations of INT8 ones: the same numbers, with zero moved by 128.

    OpenVINO (seen with 2026.4.1) computes something else of the signed kind: of YOLOv8n's confidences nothing was left,
    where ONNX Runtime found all of them.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for name in {node.input[2] for node in graph.node if node.op_type == "QuantizeLinear" and len(node.input) > 2}:  # noqa: PLR2004 - it has a zero
        zero = constants.get(name)
        if zero is not None and zero.data_type == onnx.TensorProto.INT8:
            moved = numpy_helper.to_array(zero).astype(np.int16) + 128
            zero.CopyFrom(numpy_helper.from_array(moved.astype(np.uint8), name))


def _over_softmax(node: onnx.NodeProto, makers: Mapping[str, onnx.NodeProto]) -> bool:
    """Whether what a node reads is a softmax, possibly with its axes in another order."""
    before = makers.get(node.input[0])
    if before is not None and before.op_type == "Transpose":
        before = makers.get(before.input[0])
    return before is not None and before.op_type == "Softmax"


TASKS: Mapping[str, Task] = {"quantize": quantize}
