"""What KServe's V2 protocol says, and what of it we say."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from facetmesh.detection.tensors import BYTES, Array
from facetmesh.inference import inference_pb2
from facetmesh.kit.errors import InvalidArgument, Unimplemented

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from facetmesh.detection.models import Model
    from facetmesh.detection.statistics import Tally
    from facetmesh.detection.versions import Tensor, Version

# The field of InferTensorContents that holds a datatype, and how its elements are packed.
_CONTENTS: Mapping[str, tuple[str, str]] = {
    "BOOL": ("bool_contents", "?"), "INT8": ("int_contents", "b"), "INT32": ("int_contents", "i"),
    "INT64": ("int64_contents", "q"), "UINT8": ("uint_contents", "B"), "FP32": ("fp32_contents", "f"),
    "FP64": ("fp64_contents", "d"),
}  # fmt: skip
_UNSERVED = frozenset({"shared_memory_region", "classification"})
"""Parameters of Triton's extensions; who sends one would not find what was asked for in the answer."""
_MAX_RANK = 32
_MAX_ELEMENTS = 5_000_000
"""Of `contents`, which are read one by one: an image of 1,280 pixels a side; this took half a second."""
_LENGTH = struct.Struct("<I")
_NS = 1_000_000_000
_PLATFORM = "openvino"


def given(request: inference_pb2.ModelInferRequest) -> Array:
    """What a request gives the model.

    Raises:
        InvalidArgument: INPUT_MISMATCH: it is not one tensor, or not one file; DATATYPE_UNSUPPORTED.
        Unimplemented: EXTENSION_UNSUPPORTED: it asks for shared memory, or for outputs as classes.
    """
    for parameters in (*(one.parameters for one in request.inputs), *(one.parameters for one in request.outputs)):
        if unserved := sorted(_UNSERVED & set(parameters)):
            raise Unimplemented(
                f"Tensors come and go in messages, as they are: {unserved[0]} is not served.",
                reason="EXTENSION_UNSUPPORTED",
            )
    if len(request.inputs) != 1 or len(request.raw_input_contents) > 1:
        raise InvalidArgument(
            f"The models here take one input; {len(request.inputs)} came.", reason="INPUT_MISMATCH"
        )
    tensor = request.inputs[0]
    if len(tensor.shape) > _MAX_RANK:
        raise InvalidArgument(f"A shape has at most {_MAX_RANK} sizes.", reason="INPUT_MISMATCH")
    if tensor.datatype == BYTES:
        return Array(tensor.name, BYTES, tuple(tensor.shape), _file(request, tensor))
    if request.raw_input_contents:
        return Array(tensor.name, tensor.datatype, tuple(tensor.shape), request.raw_input_contents[0])
    if tensor.datatype not in _CONTENTS:
        raise InvalidArgument(
            f"Elements of {tensor.datatype} are taken raw only: raw_input_contents.", reason="DATATYPE_UNSUPPORTED"
        )
    field, kind = _CONTENTS[tensor.datatype]
    elements = getattr(tensor.contents, field)
    if len(elements) > _MAX_ELEMENTS:
        raise InvalidArgument(
            f"More than {_MAX_ELEMENTS} elements are taken raw only: raw_input_contents.", reason="INPUT_MISMATCH"
        )
    try:
        data = struct.pack(f"<{len(elements)}{kind}", *elements)
    except struct.error:
        raise InvalidArgument(f"An element does not fit into {tensor.datatype}.", reason="INPUT_MISMATCH") from None
    return Array(tensor.name, tensor.datatype, tuple(tensor.shape), data)


def priority(request: inference_pb2.ModelInferRequest) -> int:
    """How urgent a request is, by its parameter `priority`; 0 where it has none.

    Raises:
        InvalidArgument: FIELD_INVALID: it is no whole number.
    """
    if "priority" not in request.parameters:
        return 0
    said = request.parameters["priority"]
    kind = said.WhichOneof("parameter_choice")
    if kind not in {"int64_param", "uint64_param"}:
        raise InvalidArgument("priority: expected is int64_param or uint64_param.", reason="FIELD_INVALID")
    return int(getattr(said, kind))


def answer(
    request: inference_pb2.ModelInferRequest, version: Version, outputs: Sequence[Array]
) -> inference_pb2.ModelInferResponse:
    """What a model gave, always raw."""
    return inference_pb2.ModelInferResponse(
        model_name=request.model_name,
        model_version=str(version.number),
        id=request.id,
        outputs=[
            inference_pb2.ModelInferResponse.InferOutputTensor(
                name=output.name, datatype=output.datatype, shape=output.shape
            )
            for output in outputs
        ],
        raw_output_contents=[output.data for output in outputs],
    )


def metadata(name: str, model: Model, version: Version) -> inference_pb2.ModelMetadataResponse:
    """A model's inputs and outputs."""
    return inference_pb2.ModelMetadataResponse(
        name=name,
        versions=[str(number) for number in model.versions],
        platform=_PLATFORM,
        inputs=[_tensor(tensor) for tensor in version.facts.inputs],
        outputs=[_tensor(tensor) for tensor in version.facts.outputs],
    )


def config(name: str, version: Version) -> inference_pb2.ModelConfigResponse:
    """A model's configuration."""
    inputs = [
        inference_pb2.ModelInput(name=tensor.name, data_type=_type(tensor.datatype), dims=tensor.shape)
        for tensor in version.facts.inputs
    ]
    outputs = [
        inference_pb2.ModelOutput(name=tensor.name, data_type=_type(tensor.datatype), dims=tensor.shape)
        for tensor in version.facts.outputs
    ]
    return inference_pb2.ModelConfigResponse(
        config=inference_pb2.ModelConfig(
            name=name, platform=_PLATFORM, input=inputs, output=outputs, backend="facetmesh"
        )
    )


def statistics(version: Version, tally: Tally) -> inference_pb2.ModelStatistics:
    """What became of a version's calls. What the way to its process took is in none of the stages, but in `success`."""

    def stage(name: str) -> inference_pb2.StatisticDuration:
        return inference_pb2.StatisticDuration(count=tally.ran, ns=int(tally.stages_s[name] * _NS))

    return inference_pb2.ModelStatistics(
        name=version.model_id,
        version=str(version.number),
        last_inference=int(tally.last_s * 1000),
        inference_count=tally.succeeded,
        execution_count=round(tally.engine_runs),
        inference_stats=inference_pb2.InferStatistics(
            success=inference_pb2.StatisticDuration(count=tally.succeeded, ns=int(tally.succeeded_s * _NS)),
            fail=inference_pb2.StatisticDuration(count=tally.failed, ns=int(tally.failed_s * _NS)),
            queue=stage("queue"),
            compute_input=stage("decode"),
            compute_infer=stage("infer"),
            compute_output=stage("post"),
        ),
    )


def _file(request: inference_pb2.ModelInferRequest, tensor: Any) -> bytes:
    """The one file of a tensor of BYTES."""
    if not request.raw_input_contents:
        files = list(tensor.contents.bytes_contents)
    else:
        raw = request.raw_input_contents[0]
        size = _LENGTH.unpack_from(raw)[0] if len(raw) >= _LENGTH.size else -1
        files = [raw[_LENGTH.size :]] if len(raw) == _LENGTH.size + size else []
    if len(files) != 1:
        raise InvalidArgument(f"A tensor of {BYTES} must hold one image file.", reason="INPUT_MISMATCH")
    return bytes(files[0])


def _tensor(tensor: Tensor) -> inference_pb2.ModelMetadataResponse.TensorMetadata:
    return inference_pb2.ModelMetadataResponse.TensorMetadata(
        name=tensor.name, datatype=tensor.datatype, shape=tensor.shape
    )


def _type(datatype: str) -> inference_pb2.DataType.ValueType:
    return inference_pb2.DataType.Value(f"TYPE_{datatype}")
