"""What an ONNX file may hold; looked at in a process that is thrown away.

Only the standard operators that vision models are made of, and no way out of the
file: no external data, no functions or operators of others, no subgraphs (loops
are what never ends). Sources: the ONNX specification (docs/IR.md, docs/Operators.md),
and what ultralytics', torchvision's and timm's exports are made of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx
from google.protobuf.message import DecodeError

from facetmesh.kit.errors import FailedPrecondition

if TYPE_CHECKING:
    from collections.abc import Iterator

MIN_OPSET = 9
MAX_OPSET = 22
MAX_NODES = 20_000
"""YOLO11x has about 1,000."""
_STANDARD = frozenset({"", "ai.onnx"})
ALLOWED = frozenset({
    "Abs", "Add", "And", "ArgMax", "ArgMin", "AveragePool", "BatchNormalization", "Cast", "Ceil", "Clip", "Concat",
    "Constant", "ConstantOfShape", "Conv", "ConvTranspose", "Cos", "DepthToSpace", "DequantizeLinear", "Div", "Dropout",
    "Einsum", "Elu", "Equal", "Erf", "Exp", "Expand", "Flatten", "Floor", "Gather", "GatherElements", "GatherND",
    "Gelu", "Gemm", "GlobalAveragePool", "GlobalMaxPool", "Greater", "GreaterOrEqual", "GridSample",
    "GroupNormalization", "HardSigmoid", "HardSwish", "Identity", "InstanceNormalization", "LayerNormalization",
    "LeakyRelu", "Less", "LessOrEqual", "Log", "MatMul", "Max", "MaxPool", "Min", "Mish", "Mod", "Mul", "Neg",
    "NonMaxSuppression", "NonZero", "Not", "OneHot", "Or", "PRelu", "Pad", "Pow", "QuantizeLinear", "Range",
    "Reciprocal", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "Relu", "Reshape",
    "Resize", "Round", "ScatterElements", "ScatterND", "Shape", "Sigmoid", "Sign", "Sin", "Slice", "Softmax",
    "Softplus", "Softsign", "SpaceToDepth", "Split", "Sqrt", "Squeeze", "Sub", "Sum", "Tanh", "Tile", "TopK",
    "Transpose", "Trilu", "Unsqueeze", "Upsample", "Where", "Xor",
})  # fmt: skip
"""The operators that models may be made of."""
DATATYPES = {
    onnx.TensorProto.FLOAT: "FP32", onnx.TensorProto.FLOAT16: "FP16", onnx.TensorProto.DOUBLE: "FP64",
    onnx.TensorProto.UINT8: "UINT8", onnx.TensorProto.INT8: "INT8", onnx.TensorProto.INT32: "INT32",
    onnx.TensorProto.INT64: "INT64", onnx.TensorProto.BOOL: "BOOL",
}  # fmt: skip
"""What KServe's protocol calls ONNX's types."""


def check(data: bytes) -> onnx.ModelProto:
    """Reads a file, and returns it when it holds nothing that it may not.

    Raises:
        FailedPrecondition: MODEL_UNREADABLE, MODEL_OPSET_UNSUPPORTED, MODEL_OP_NOT_ALLOWED, MODEL_EXTERNAL_DATA
            or MODEL_TOO_COMPLEX.
    """
    try:
        model = onnx.ModelProto.FromString(data)
    except DecodeError:
        raise FailedPrecondition("The file is no ONNX model.", reason="MODEL_UNREADABLE") from None
    if not model.graph.node or not model.graph.output:
        raise FailedPrecondition("The ONNX model has no nodes or no outputs.", reason="MODEL_UNREADABLE")
    _check_opset(model)
    if model.functions or model.training_info:
        raise _not_allowed("a function or training information of its own")
    if len(model.graph.node) > MAX_NODES:
        raise FailedPrecondition(
            f"The model has {len(model.graph.node)} nodes; at most {MAX_NODES} are allowed.",
            reason="MODEL_TOO_COMPLEX",
        )
    for node in model.graph.node:
        _check_node(node)
    for tensor in _tensors(model.graph):
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise FailedPrecondition(
                "The model keeps data outside of its file: export it as one file.", reason="MODEL_EXTERNAL_DATA"
            )
    return model


def tensors(values: Any) -> list[dict[str, Any]]:
    """The name, KServe datatype and shape of a graph's inputs or outputs."""
    return [
        {
            "name": value.name,
            "datatype": DATATYPES.get(value.type.tensor_type.elem_type, "FP32"),
            "shape": [one.dim_value if one.dim_value > 0 else -1 for one in value.type.tensor_type.shape.dim],
        }
        for value in values
    ]


def _check_opset(model: onnx.ModelProto) -> None:
    for opset in model.opset_import:
        if opset.domain in _STANDARD and not MIN_OPSET <= opset.version <= MAX_OPSET:
            raise FailedPrecondition(
                f"The model has opset {opset.version}; {MIN_OPSET} to {MAX_OPSET} are read.",
                reason="MODEL_OPSET_UNSUPPORTED",
            )
    if not any(opset.domain in _STANDARD for opset in model.opset_import):
        raise FailedPrecondition("The model names no opset.", reason="MODEL_OPSET_UNSUPPORTED")


def _check_node(node: onnx.NodeProto) -> None:
    if node.domain not in _STANDARD or node.op_type not in ALLOWED:
        raise _not_allowed(f'the operator "{f"{node.domain}." if node.domain else ""}{node.op_type}"'[:200])
    if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
        raise _not_allowed("a subgraph")


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from ([attribute.t] if attribute.HasField("t") else ())
            yield from attribute.tensors


def _not_allowed(what: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"The model has {what}; models may be made of ONNX's standard vision operators only.",
        reason="MODEL_OP_NOT_ALLOWED",
    )
