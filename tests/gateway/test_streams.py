"""What is no single question and answer: streams in both directions, and other people's protocols."""

from __future__ import annotations

import queue
from typing import TYPE_CHECKING

import grpc

from facetmesh.detection.v1 import detection_pb2 as pb
from facetmesh.detection.v1 import detection_pb2_grpc
from facetmesh.inference import inference_pb2, inference_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .conftest import Gate

DEADLINE_S = 120


def test_a_frame_is_answered_before_the_next_is_sent(gate: Gate, group: bytes) -> None:
    frames: queue.Queue[int | None] = queue.Queue()

    def sent() -> Iterator[pb.DetectStreamRequest]:
        yield pb.DetectStreamRequest(settings=pb.StreamSettings(model="tenants/acme/models/faces"))
        while (number := frames.get(timeout=DEADLINE_S)) is not None:
            yield pb.DetectStreamRequest(frame=pb.Frame(frame_id=number, image=group))

    metadata = [("x-api-key", gate.mesh.tenant("acme"))]
    with grpc.insecure_channel(f"127.0.0.1:{gate.ports.gateway}") as channel:
        stub = detection_pb2_grpc.DetectionServiceStub(channel)
        answers = stub.DetectStream(sent(), metadata=metadata, timeout=DEADLINE_S)
        for number in (1, 2, 3):
            frames.put(number)
            assert next(answers).frame_id == number
        frames.put(None)
        assert list(answers) == []


def test_kserves_protocol_goes_through(gate: Gate) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{gate.ports.gateway}") as channel:
        stub = inference_pb2_grpc.GRPCInferenceServiceStub(channel)
        metadata = [("x-api-key", gate.mesh.tenant("acme"))]
        assert stub.ServerLive(inference_pb2.ServerLiveRequest(), metadata=metadata, timeout=DEADLINE_S).live
