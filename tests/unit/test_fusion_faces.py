"""Faces: detection asked over a real channel, and which face is meant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest

from facetmesh.detection.v1 import detection_pb2 as pb
from facetmesh.detection.v1 import detection_pb2_grpc, model_pb2, model_pb2_grpc
from facetmesh.fusion.detection import DetectionFaces
from facetmesh.fusion.faces import MOST, Face, Order, Pick, Seen, Selection, select
from facetmesh.fusion.moderation import Moderator
from facetmesh.kit import status
from facetmesh.kit.errors import FailedPrecondition, InvalidArgument, Unauthenticated, Unavailable
from facetmesh.kit.tls import TlsFiles

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MODEL = "tenants/acme/models/faces"


class Detection(detection_pb2_grpc.DetectionServiceServicer, model_pb2_grpc.ModelServiceServicer):
    """Answers as a test says."""

    def __init__(self) -> None:
        self.answer: pb.DetectResponse | FailedPrecondition = pb.DetectResponse(model_version=f"{MODEL}/versions/1")
        self.requests: list[tuple[pb.DetectRequest, dict[str, Any]]] = []
        self.good_token = ""
        self.models: list[model_pb2.Model] = []
        self.listed: list[str] = []

    async def ListModels(self, request: model_pb2.ListModelsRequest, _: Any) -> model_pb2.ListModelsResponse:
        """Answers."""
        self.listed.append(request.parent)
        return model_pb2.ListModelsResponse(models=self.models)

    async def Detect(self, request: pb.DetectRequest, context: Any) -> pb.DetectResponse:
        """Answers."""
        self.requests.append((request, dict(context.invocation_metadata())))
        if self.good_token and self.good_token != self.requests[-1][1]["authorization"]:
            await status.abort(context, Unauthenticated("It has expired.", reason="TOKEN_EXPIRED"))
        if isinstance(self.answer, FailedPrecondition):
            await status.abort(context, self.answer)
        assert isinstance(self.answer, pb.DetectResponse)
        return self.answer


@pytest.fixture
async def detection() -> AsyncIterator[tuple[Detection, DetectionFaces]]:
    """A detection service and its client."""
    server, servicer = grpc.aio.server(), Detection()
    detection_pb2_grpc.add_DetectionServiceServicer_to_server(servicer, server)
    model_pb2_grpc.add_ModelServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()

    forgotten: list[str] = []

    async def token(tenant: str) -> str:
        return f"token {len(forgotten)} of {tenant}"

    client = DetectionFaces(f"127.0.0.1:{port}", TlsFiles(), token, forgotten.append)
    yield servicer, client
    await client.close()
    await server.stop(None)


async def test_it_is_asked_on_behalf_of_the_tenant(detection: tuple[Detection, DetectionFaces]) -> None:
    servicer, client = detection
    found = await client.find("acme", MODEL, b"image")
    ((request, metadata),) = servicer.requests
    assert (request.model, request.image) == (MODEL, b"image")
    assert metadata["authorization"] == "Bearer token 0 of tenants/acme"
    assert metadata["x-facetmesh-model"] == MODEL
    assert (list(found.faces), found.model_version) == ([], f"{MODEL}/versions/1")


async def test_only_faces_count_and_eyes_come_along(detection: tuple[Detection, DetectionFaces]) -> None:
    servicer, client = detection
    servicer.answer = pb.DetectResponse(detections=[
        pb.Detection(label=label, box=pb.BoundingBox(x_max=width, y_max=10), keypoints=points)
        for label, width, points in (
            ("FEET_EXPOSED", 90, []), ("FACE_MALE", 10, []),
            ("face", 30, [pb.Keypoint(label="left_eye", x=15, y=5), pb.Keypoint(label="right_eye", x=5, y=5)]),
        )
    ])  # fmt: skip
    found = await client.find("acme", MODEL, b"image")
    assert list(found.faces) == [
        Face((0, 0, 10, 10), label="FACE_MALE"), Face((0, 0, 30, 10), (5, 5), (15, 5), "face")
    ]


async def test_a_face_that_is_seen_under_two_labels_is_one(detection: tuple[Detection, DetectionFaces]) -> None:
    servicer, client = detection
    servicer.answer = pb.DetectResponse(detections=[
        pb.Detection(label=label, confidence=sure, box=pb.BoundingBox(x_min=left, x_max=left + 10, y_max=10))
        for label, sure, left in (("FACE_MALE", 0.6, 1), ("FACE_FEMALE", 0.5, 0), ("FACE_FEMALE", 0.4, 7))
    ])  # fmt: skip
    found = await client.find("acme", MODEL, b"image")
    assert [(face.label, face.box[0]) for face in found.faces] == [("FACE_MALE", 1), ("FACE_FEMALE", 7)]
    assert len(found.seen) == 3


async def test_what_else_is_there_is_told_with_its_confidence(detection: tuple[Detection, DetectionFaces]) -> None:
    servicer, client = detection
    servicer.answer = pb.DetectResponse(detections=[pb.Detection(label="FEET_EXPOSED", confidence=0.5)])
    found = await client.find("acme", MODEL, b"image", version=f"{MODEL}/versions/7")
    assert (found.faces, found.seen) == ([], [Seen("FEET_EXPOSED", 0.5)])
    assert servicer.requests[0][0].version == "7"


async def test_what_moderates_is_of_the_catalogue_and_no_upload(detection: tuple[Detection, DetectionFaces]) -> None:
    servicer, client = detection
    parent = "tenants/acme/models"
    servicer.models = [model_pb2.Model(name=f"{parent}/nudenet-320n", version=f"{parent}/nudenet-320n/versions/1")]
    assert await client.moderator("acme") is None
    guard = model_pb2.Model(name=f"{parent}/guard", version=f"{parent}/guard/versions/2", catalog_id="nudenet-320n")
    servicer.models.append(guard)
    for _ in range(2):
        assert await client.moderator("acme") == Moderator(guard.name, guard.version)
    assert servicer.listed == ["tenants/acme"] * 2  # the second time it was known


async def test_a_refusal_is_passed_on_with_its_reason(detection: tuple[Detection, DetectionFaces]) -> None:
    servicer, client = detection
    servicer.answer = FailedPrecondition("Fetch it.", reason="MODEL_NOT_FETCHED")
    with pytest.raises(FailedPrecondition) as refusal:
        await client.find("acme", MODEL, b"image")
    assert refusal.value.reason == "MODEL_NOT_FETCHED"


async def test_a_token_that_is_refused_is_replaced_once(detection: tuple[Detection, DetectionFaces]) -> None:
    servicer, client = detection
    servicer.good_token = "Bearer token 1 of tenants/acme"
    assert (await client.find("acme", MODEL, b"image")).model_version
    servicer.good_token = "none is good"
    with pytest.raises(Unauthenticated):
        await client.find("acme", MODEL, b"image")
    assert len(servicer.requests) == 4


async def test_an_outage_is_unavailable() -> None:
    async def token(_: str) -> str:
        return "t"

    client = DetectionFaces("127.0.0.1:1", TlsFiles(), token, lambda _: None)
    with pytest.raises(Unavailable):
        await client.find("acme", MODEL, b"image")
    await client.close()


SMALL, LARGE, MIDDLE = Face((0, 40, 10, 50)), Face((20, 0, 50, 30), label="FACE_MALE"), Face((60, 0, 65, 60))
FACES = [SMALL, LARGE, MIDDLE]


def test_faces_are_counted_by_size() -> None:
    assert [select(FACES, index, "source") for index in range(3)] == [[LARGE], [MIDDLE], [SMALL]]


@pytest.mark.parametrize(
    ("order", "first", "last"),
    [
        (Order.SMALLEST, SMALL, LARGE), (Order.LEFTMOST, SMALL, MIDDLE), (Order.RIGHTMOST, MIDDLE, SMALL),
        (Order.TOPMOST, LARGE, SMALL), (Order.LOWEST, SMALL, LARGE),
    ],
)  # fmt: skip
def test_they_are_counted_in_other_orders_too(order: Order, first: Face, last: Face) -> None:
    selection = Selection(order=order)
    assert [select(FACES, index, "target", selection) for index in (0, 2)] == [[first], [last]]


def test_they_are_picked_by_place_by_label_or_all() -> None:
    assert select(FACES, 0, "target", Selection(Pick.NEAREST, near=(61, 20))) == [MIDDLE]
    assert select(FACES, 0, "target", Selection(Pick.SOLE, label="FACE_MALE")) == [LARGE]
    assert select(FACES, 0, "target", Selection(Pick.ALL)) == [LARGE, MIDDLE, SMALL]


@pytest.mark.parametrize(
    ("count", "selection", "reason"),
    [
        (0, Selection(), "NO_FACE"),
        (2, Selection(), "FACE_INDEX_OUT_OF_RANGE"),
        (5, Selection(Pick.SOLE), "SEVERAL_FACES"),
        (1, Selection(Pick.SOLE), "FACE_INDEX_OUT_OF_RANGE"),
        (MOST + 1, Selection(Pick.ALL), "TOO_MANY_FACES"),
    ],
)
def test_faces_that_are_not_there_are_refused(count: int, selection: Selection, reason: str) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        select([Face((0, 0, 10, 10))] * count, 2, "target", selection)
    assert refusal.value.reason == reason
    assert refusal.value.metadata == {"image": "target", "faces": str(count)}
    assert "target" in refusal.value.message


def test_a_label_that_no_face_has_is_said() -> None:
    with pytest.raises(InvalidArgument, match="FACE_FEMALE") as refusal:
        select(FACES, 0, "target", Selection(label="FACE_FEMALE"))
    assert refusal.value.reason == "NO_FACE"
