"""Models that tenants bring, and streams and batches of images, through real services."""

from __future__ import annotations

import hashlib
import io
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from PIL import Image
from tests.unit import onnx_models

from facetmesh.client import AsyncClient, FacetmeshError
from facetmesh.detection.v1 import detection_pb2, detection_pb2_grpc, model_pb2, model_pb2_grpc
from facetmesh.kit import status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from facetmesh.client import Client

    from .conftest import Mesh

CAT, DOG = (32, 32, 20, 10, 0, 0.9), (32, 32, 20, 10, 1, 0.8)


def picture() -> bytes:
    """A small grey PNG."""
    file = io.BytesIO()
    Image.new("RGB", (64, 64), (90, 90, 90)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def pets(mesh: Mesh) -> Client:
    """A client of a tenant with two versions of a model: the first sees cats, the second dogs."""
    client = mesh.client(mesh.tenant("pets"))
    client.__enter__()
    for box in (CAT, DOG):
        client.upload_model("pets", onnx_models.detector(box), licence="MIT")
    return client


@pytest.fixture(scope="module", autouse=True)
def _closed(pets: Client) -> Iterator[None]:
    yield
    pets.__exit__(None, None, None)


def seen(client: Client, version: str = "") -> list[str]:
    """What the model sees."""
    return [found.label for found in client.detect("pets", picture(), version=version).detections]


def test_versions_and_aliases(pets: Client) -> None:
    assert [one.name.rpartition("/")[2] for one in pets.list_versions("pets")] == ["2", "1"]
    assert (seen(pets), seen(pets, "2")) == (["cat"], ["dog"])
    pets.set_aliases("pets", {"canary": "2"})
    assert seen(pets, "canary") == ["dog"]
    pets.set_traffic("pets", model_pb2.Traffic(targets=[model_pb2.Traffic.Target(version="canary", percent=100)]))
    try:
        with pytest.raises(FacetmeshError) as refusal:
            pets.set_aliases("pets", {"canary": None})
        assert refusal.value.reason == "VERSION_NOT_FOUND"
        with pytest.raises(FacetmeshError) as refusal:
            pets.delete_version("pets", "2")
        assert refusal.value.reason == "VERSION_IN_USE"
    finally:
        pets.set_traffic("pets", model_pb2.Traffic())


def test_a_batch_has_an_answer_for_each(pets: Client) -> None:
    good, bad, last = pets.batch_detect("pets", [picture(), b"no image", picture()])
    assert good.response.detections[0].label == last.response.detections[0].label == "cat"
    assert status.from_status(bad.status).reason == "IMAGE_NOT_RECOGNIZED"


async def test_a_call_says_how_urgent_it_is(mesh: Mesh, pets: Client) -> None:
    assert pets.detect("pets", picture(), priority=1).detections
    assert [one.HasField("response") for one in pets.batch_detect("pets", [picture()] * 2, priority=9)] == [True, True]

    async def video() -> AsyncIterator[bytes]:
        yield picture()

    async with AsyncClient(mesh.tenant("pets"), mesh.endpoints) as client:
        answers = [answer async for answer in client.detect_stream("pets", video(), priority=2)]
        assert [answer.HasField("response") for answer in answers] == [True]
        with pytest.raises(FacetmeshError) as refusal:
            _ = [answer async for answer in client.detect_stream("pets", video(), priority=10)]
    assert refusal.value.reason == "FIELD_INVALID"


async def test_frames_are_answered_in_their_order(mesh: Mesh, pets: Client) -> None:
    assert pets
    frames = [picture(), b"no image", *[picture()] * 10]

    async def video() -> AsyncIterator[bytes]:
        for frame in frames:
            yield frame

    async with AsyncClient(mesh.tenant("pets"), mesh.endpoints) as client:
        answers = [answer async for answer in client.detect_stream("pets", video())]
    assert [answer.frame_id for answer in answers] == list(range(len(frames)))
    assert [answer.WhichOneof("outcome") for answer in answers[:3]] == ["response", "status", "response"]
    receipts = {answer.response.receipt for answer in answers if answer.HasField("response")}
    assert len(receipts) == len(frames) - 1  # each is accounted for


class Wire:
    """Streams as a caller might send them."""

    def __init__(self, channel: grpc.Channel, token: str) -> None:
        """Has stubs."""
        self._detection = detection_pb2_grpc.DetectionServiceStub(channel)
        self._models = model_pb2_grpc.ModelServiceStub(channel)
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()

    def refusal(self, messages: Sequence[Any]) -> str:
        """The reason that a stream is refused with."""
        uploads = bool(messages) and isinstance(messages[0], model_pb2.UploadModelRequest)
        with pytest.raises(grpc.RpcError) as raised:  # noqa: PT012 - one call, of two kinds
            if uploads:
                self._models.UploadModel(iter(messages), metadata=self._metadata, timeout=60)
            else:
                list(self._detection.DetectStream(iter(messages), metadata=self._metadata, timeout=60))
        return status.from_rpc_error(raised.value).reason  # type: ignore[arg-type]


@pytest.fixture
def wire(mesh: Mesh, pets: Client) -> Iterator[Wire]:
    """Streams of pets'."""
    with grpc.insecure_channel(mesh.endpoints.detection) as channel:
        yield Wire(channel, pets.token().access_token)


def settings(model: str) -> detection_pb2.DetectStreamRequest:
    """A stream's first message."""
    return detection_pb2.DetectStreamRequest(settings=detection_pb2.StreamSettings(model=model))


FRAME = detection_pb2.DetectStreamRequest(frame=detection_pb2.Frame(image=picture()))
OWN, OTHERS = "tenants/pets/models/pets", "tenants/acme/models/faces"


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([], "REQUEST_MISSING"),
        ([FRAME], "FIRST_MESSAGE_INVALID"),
        ([settings(OTHERS), FRAME], "TENANT_MISMATCH"),
        ([settings("no name"), FRAME], "TENANT_MISMATCH"),
        ([settings("tenants/pets/models/NO")], "FIELD_INVALID"),
        ([settings("tenants/pets/models/nobody"), FRAME], "MODEL_NOT_FOUND"),
        ([settings(OWN), settings(OWN)], "SETTINGS_REPEATED"),
        ([settings(OWN), FRAME, settings(OTHERS)], "TENANT_MISMATCH"),
        ([settings(OWN), detection_pb2.DetectStreamRequest()], "FIELD_INVALID"),
    ],
    ids=["nothing", "no settings", "other tenant's", "no name", "no id", "no model", "twice", "later", "empty"],
)
def test_streams_are_refused(wire: Wire, messages: list[Any], reason: str) -> None:
    assert wire.refusal(messages) == reason


def spec(file: bytes, **more: Any) -> model_pb2.UploadModelRequest:
    """An upload's first message."""
    digest = hashlib.sha256(file).hexdigest()
    what = {"model": OWN, "sha256": digest, "size_bytes": len(file), "licence": "MIT", **more}
    return model_pb2.UploadModelRequest(spec=model_pb2.UploadSpec(**what))


def test_uploads_are_refused(wire: Wire) -> None:
    file = onnx_models.detector((30, 30, 10, 10, 0, 0.7))
    chunk = model_pb2.UploadModelRequest(chunk=file)
    assert wire.refusal([chunk]) == "FIRST_MESSAGE_INVALID"
    assert wire.refusal([spec(file, model=OTHERS), chunk]) == "TENANT_MISMATCH"
    assert wire.refusal([spec(file, licence="CC-BY-NC-4.0"), chunk]) == "LICENCE_NOT_ALLOWED"
    assert wire.refusal([spec(file), spec(file)]) == "SPEC_REPEATED"
    assert wire.refusal([spec(file)]) == "UPLOAD_INCOMPLETE"
    assert wire.refusal([spec(file, offset=5), chunk]) == "OFFSET_MISMATCH"
    assert wire.refusal([spec(file), chunk, chunk]) == "UPLOAD_TOO_LONG"
    assert wire.refusal([spec(b"another file of " + b"x" * (len(file) - 16)), chunk]) == "UPLOAD_CORRUPT"


def test_nobody_uploads_without_a_token(mesh: Mesh) -> None:
    with grpc.insecure_channel(mesh.endpoints.detection) as channel:
        assert Wire(channel, "").refusal([spec(b"x")]) == "TOKEN_MISSING"


def test_an_address_is_fetched_from_hosts_that_are_allowed_only(pets: Client) -> None:
    for address in ("https://images.example.com/cat.jpg", "https://localhost/cat.jpg"):
        with pytest.raises(FacetmeshError) as refusal:
            pets.detect("pets", address)
        assert refusal.value.reason == "IMAGE_HOST_NOT_ALLOWED"
    for address in ("https://10.0.0.1/x.jpg", "https://user@images.example.com/", "https://images.example.com:22/"):
        with pytest.raises(FacetmeshError) as refusal:
            pets.detect("pets", address)
        assert refusal.value.reason == "IMAGE_URI_INVALID"
