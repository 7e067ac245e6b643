"""Messages of too many fields, which are not read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from google.protobuf.message import DecodeError

from facetmesh.auth.v1 import limits_pb2
from facetmesh.detection.v1 import detection_pb2
from facetmesh.inference import inference_pb2
from facetmesh.kit import wire

if TYPE_CHECKING:
    from google.protobuf.message import Message

DETECT, BATCH, INFER = detection_pb2.DetectRequest, detection_pb2.BatchDetectRequest, inference_pb2.ModelInferRequest


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        pytest.param(INFER, b"\x2a\x00" * 50_000, id="inputs"),
        pytest.param(INFER, INFER(inputs=[{"parameters": {str(n): {} for n in range(20_000)}}]).SerializeToString(),
                     id="a-map-within"),
        pytest.param(DETECT, DETECT(labels=[""] * 50_000).SerializeToString(), id="labels"),
        pytest.param(BATCH, BATCH(requests=[DETECT(labels=[""] * 2000)] * 32).SerializeToString(), id="labels-within"),
        pytest.param(DETECT, b"\xf8\x07\x00" * 50_000, id="unknown"),
        pytest.param(DETECT, b"\x0b\x0c" * 50_000, id="groups"),
        pytest.param(DETECT, b"\xff" * 100_000, id="no-message"),
        pytest.param(DETECT, b"\x08" * 99_999, id="cut"),
    ],
)  # fmt: skip
def test_too_many_fields(kind: type[Message], data: bytes) -> None:
    with pytest.raises(DecodeError):
        wire.check(data, kind.DESCRIPTOR)


@pytest.mark.parametrize(
    "message",
    [
        DETECT(model="m", image=b"\x2a\x00" * 1_000_000, labels=["a"] * 1000),
        BATCH(model="m", requests=[DETECT(model="m", image=b"x" * 10_000, labels=["a"] * 1000)] * 32),
        INFER(inputs=[{"contents": {"fp32_contents": [0.5] * 300_000, "int64_contents": [1] * 100_000}}]),
        limits_pb2.LeaseBudgetsRequest(
            demands=[{"account": "a", "wanted": {"images": 1.0}}] * 500,
            work=[{"tenant": "tenants/a", "subject": "s" * 100, "model": "m", "calls": 1, "images": 1}] * 2000,
        ),
    ],
    ids=["an-image", "a-batch", "packed", "leases"],
)
def test_what_may_be_asked_is_read(message: Message) -> None:
    wire.check(message.SerializeToString(), message.DESCRIPTOR)
