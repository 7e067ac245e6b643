"""What KServe's protocol asks for and is refused before any process hears of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from facetmesh.detection import kserve_messages
from facetmesh.detection.tensors import Array, TensorRunner
from facetmesh.detection.versions import Tensor
from facetmesh.inference import inference_pb2 as pb
from facetmesh.kit.errors import InvalidArgument, Unimplemented

# Nothing but a version's sides is looked at before a refusal.
VERSION: Any = SimpleNamespace(
    facts=SimpleNamespace(
        inputs=(Tensor("images", "FP32", (1, 3, 2, 2)),), outputs=(Tensor("output0", "FP32", (1, 6, 8)),)
    )
)
GIVEN = Array("images", "FP32", (1, 3, 2, 2), bytes(48))


async def refused(given: Array, *wanted: str) -> InvalidArgument:
    """What a call is refused with; there is nobody who could run it."""
    nobody: Any = None
    with pytest.raises(InvalidArgument) as caught:
        await TensorRunner(nobody, nobody, is_loaded=nobody).infer(VERSION, given, wanted)
    return caught.value


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [(("nobody",), "OUTPUT_UNKNOWN"), (("output0",) * 10_000, "OUTPUT_REPEATED")],
)
async def test_outputs_are_the_models_each_once(wanted: tuple[str, ...], reason: str) -> None:
    """An answer of as many copies as somebody likes would end the model's process."""
    assert (await refused(GIVEN, *wanted)).reason == reason


@pytest.mark.parametrize(("rank", "elements"), [(33, 1), (1, 5_000_001)])
def test_what_would_keep_everybody_waiting_is_not_read(rank: int, elements: int) -> None:
    """Sizes and elements are read one by one."""
    request = pb.ModelInferRequest()
    one = request.inputs.add(name="images", datatype="FP32", shape=(1,) * rank)
    one.contents.fp32_contents.extend([0.0] * elements)
    with pytest.raises(InvalidArgument) as caught:
        kserve_messages.given(request)
    assert caught.value.reason == "INPUT_MISMATCH"


@pytest.mark.parametrize("parameter", ["shared_memory_region", "classification"])
@pytest.mark.parametrize("side", ["inputs", "outputs"])
def test_what_is_not_served_is_not_passed_over(side: str, parameter: str) -> None:
    """Who reads the answer from shared memory would read something else."""
    request = pb.ModelInferRequest(inputs=[pb.ModelInferRequest.InferInputTensor(name="images")])
    one = request.inputs[0] if side == "inputs" else request.outputs.add()
    one.parameters[parameter].int64_param = 1
    with pytest.raises(Unimplemented) as caught:
        kserve_messages.given(request)
    assert caught.value.reason == "EXTENSION_UNSUPPORTED"
    assert parameter in caught.value.message
