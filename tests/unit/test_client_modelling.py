"""How the client sends a model's file where something comes between."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from facetmesh.client import modelling
from facetmesh.client.modelling import Modelling
from facetmesh.detection.v1 import model_pb2, model_pb2_grpc
from facetmesh.kit import status
from facetmesh.kit.errors import Aborted, FacetmeshError, InvalidArgument, NotFound, PermissionDenied, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

FILE = bytes(5)


@dataclass
class Service:
    """Takes as much of a file as it is told to, and then fails."""

    failures: list[tuple[int, FacetmeshError]]
    received: int = 0
    offsets: list[int] = field(default_factory=list)

    async def GetUpload(self, _: Any) -> model_pb2.Upload:
        return model_pb2.Upload(size_bytes=len(FILE), received_bytes=self.received)

    async def UploadModel(self, parts: Iterator[model_pb2.UploadModelRequest]) -> model_pb2.ModelVersion:
        spec, *chunks = parts
        self.offsets.append(spec.spec.offset)
        if self.failures:
            self.received, error = self.failures.pop(0)
            raise error
        whole = bytes(spec.spec.offset) + b"".join(one.chunk for one in chunks)
        return model_pb2.ModelVersion(sha256=hashlib.sha256(whole).hexdigest())


class Strict(model_pb2_grpc.ModelServiceServicer):
    """Lets nobody send anything."""

    async def GetUpload(self, _: Any, context: Any) -> None:
        await status.abort(context, NotFound("None."))

    async def UploadModel(self, requests: Any, context: Any) -> None:
        await anext(requests)
        await status.abort(context, PermissionDenied("Not that.", reason="LICENCE_NOT_ALLOWED"))


class Client(Modelling):
    """The client, of one tenant."""

    def __init__(self, service: Any) -> None:
        self._models = service

    async def _parent(self, tenant: str | None) -> str:
        return tenant or "tenants/acme"

    async def _name(self, collection: str, name: str) -> str:
        return f"tenants/acme/{collection}/{name}"


@pytest.fixture(autouse=True)
def _no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modelling, "_REST_S", 0.0)


async def test_a_file_that_comes_for_another_model_too_goes_on() -> None:
    service = Service([
        (2, Unavailable("Gone.")),
        (3, Aborted("Somebody else.", reason="UPLOAD_CONFLICT")),
        (4, InvalidArgument("4 bytes are here.", reason="OFFSET_MISMATCH")),
        (0, Aborted("Somebody else.", reason="UPLOAD_CONFLICT")),
    ])  # fmt: skip
    version = await Client(service).upload_model("pets", FILE, licence="MIT")
    assert version.sha256 == hashlib.sha256(FILE).hexdigest()
    assert service.offsets == [0, 2, 3, 4, 0]


async def test_what_gets_no_further_ends() -> None:
    service = Service([(received, Unavailable("Gone.")) for received in (1, 2, 3, 4, 4, 4, 4, 4, 4)])
    with pytest.raises(Unavailable):
        await Client(service).upload_model("pets", FILE, licence="MIT")
    assert service.offsets == [0, 1, 2, 3, 4, 4, 4, 4, 4]


async def test_what_is_refused_is_not_sent_again() -> None:
    service = Service([(5, InvalidArgument("Too large.", reason="MODEL_TOO_LARGE"))])
    with pytest.raises(InvalidArgument):
        await Client(service).upload_model("pets", FILE, licence="MIT")
    assert service.offsets == [0]


async def test_a_refusal_that_comes_while_the_file_is_sent_is_told() -> None:
    """Of one call in six grpc.aio loses it."""
    server = grpc.aio.server()
    model_pb2_grpc.add_ModelServiceServicer_to_server(Strict(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        client = Client(model_pb2_grpc.ModelServiceStub(channel))
        for _ in range(30):
            with pytest.raises(PermissionDenied):
                await client.upload_model("pets", bytes(16 << 20), licence="MIT")
    await server.stop(0)
