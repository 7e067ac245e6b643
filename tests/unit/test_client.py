"""The client against servers that answer as the services do, over real sockets."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import json
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from google.api import httpbody_pb2
from google.longrunning import operations_pb2

import facetmesh.client
from facetmesh.auth.v1 import auth_pb2, auth_pb2_grpc
from facetmesh.client import AsyncClient, Client, Endpoints, Tls, channels, retries
from facetmesh.client.tokens import TokenSource
from facetmesh.detection.v1 import detection_pb2, detection_pb2_grpc
from facetmesh.fusion.v1 import fusion_pb2, fusion_pb2_grpc
from facetmesh.kit import errors, status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path


@dataclass
class Auth(auth_pb2_grpc.AuthServiceServicer):
    """Issues tokens t1, t2, … for tenants/acme."""

    life_s: int = 600
    issued: int = 0
    tenants: int = 2500
    keys_asked: int = 0

    async def IssueToken(self, request: Any, context: Any) -> Any:
        if request.key != "right":
            await status.abort(context, errors.Unauthenticated("No.", reason="KEY_INVALID"))
        self.issued += 1
        answer = auth_pb2.IssueTokenResponse(access_token=f"t{self.issued}", tenant="tenants/acme")
        answer.expire_time.GetCurrentTime()
        answer.expire_time.seconds += self.life_s
        return answer

    async def ListTenants(self, request: Any, context: Any) -> Any:
        del context
        start = int(request.page_token or 0)
        end = min(self.tenants, start + request.page_size)
        tenants = [auth_pb2.Tenant(name=f"tenants/t{i:04}") for i in range(start, end)]
        return auth_pb2.ListTenantsResponse(tenants=tenants, next_page_token=str(end) if end < self.tenants else "")

    async def CreateKey(self, request: Any, context: Any) -> Any:
        self.keys_asked += 1
        await status.abort(context, errors.Unavailable("Down.", reason="SIDECAR_DOWN"))


@dataclass
class Detection(detection_pb2_grpc.DetectionServiceServicer):
    """Fails as often as told, and remembers what came."""

    failures: list[errors.FacetmeshError] = field(default_factory=list)
    calls: list[tuple[dict[str, Any], Any]] = field(default_factory=list)
    stall: bool = False
    time_left_s: float | None = None
    frames: list[Any] = field(default_factory=list)
    stream_ended: asyncio.Event = field(default_factory=asyncio.Event)
    gave_up: asyncio.Event = field(default_factory=asyncio.Event)

    async def DetectStream(self, request_iterator: Any, context: Any) -> AsyncIterator[Any]:
        del context
        try:
            async for request in request_iterator:
                if request.HasField("frame"):
                    self.frames.append(request.frame)
                    yield detection_pb2.DetectStreamResponse(frame_id=request.frame.frame_id)
        finally:
            self.stream_ended.set()

    async def Detect(self, request: Any, context: Any) -> Any:
        self.time_left_s = context.time_remaining()
        self.calls.append((dict(context.invocation_metadata()), request))
        if self.stall:
            try:
                await asyncio.Event().wait()
            finally:
                self.gave_up.set()
        if self.failures:
            await status.abort(context, self.failures.pop(0))
        return detection_pb2.DetectResponse(image_width=7)


@dataclass
class Fusion(fusion_pb2_grpc.FusionServiceServicer):
    """Is done at the second look."""

    error: errors.FacetmeshError | None = None
    looks: int = 0
    tokens: list[str] = field(default_factory=list)

    async def CreateFusion(self, request: Any, context: Any) -> Any:
        del request, context
        return operations_pb2.Operation(name="tenants/acme/operations/o")

    async def WaitOperation(self, request: Any, context: Any) -> Any:
        del context
        self.looks += 1
        operation = operations_pb2.Operation(name=request.name, done=self.looks > 1)
        operation.metadata.Pack(fusion_pb2.FusionMetadata(percent=50 * self.looks))
        if operation.done and self.error:
            operation.error.CopyFrom(status.to_status(self.error))
        elif operation.done:
            operation.response.Pack(fusion_pb2.Fusion(name="tenants/acme/fusions/f"))
        return operation

    async def DownloadFusion(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self.tokens.append(dict(context.invocation_metadata())["authorization"])
        for part in (b"abc", b"def"):
            yield httpbody_pb2.HttpBody(data=part)


@dataclass
class Mesh:
    """The servers, and where they are."""

    auth: Auth
    detection: Detection
    fusion: Fusion
    endpoints: Endpoints


@asynccontextmanager
async def running() -> AsyncIterator[Mesh]:
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
    auth, detection, fusion = Auth(), Detection(), Fusion()
    auth_pb2_grpc.add_AuthServiceServicer_to_server(auth, server)
    detection_pb2_grpc.add_DetectionServiceServicer_to_server(detection, server)
    fusion_pb2_grpc.add_FusionServiceServicer_to_server(fusion, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield Mesh(auth, detection, fusion, Endpoints.gateway(f"127.0.0.1:{port}", None))
    finally:
        await server.stop(None)


def self_signed(address: str) -> tuple[bytes, bytes]:
    """A private key and a certificate for address, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))]), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem, certificate.public_bytes(Encoding.PEM)


@pytest.fixture
async def mesh() -> AsyncIterator[Mesh]:
    async with running() as mesh:
        yield mesh


async def test_a_call_carries_a_token_the_model_and_the_whole_name(mesh: Mesh) -> None:
    async with AsyncClient("right", mesh.endpoints) as client:
        for _ in range(3):
            await client.detect("faces", b"image")
    headers, request = mesh.detection.calls[-1]
    assert headers["authorization"] == "Bearer t1", "one exchange serves many calls"
    assert headers["x-facetmesh-model"] == request.model == "tenants/acme/models/faces"


async def test_the_service_hears_of_the_deadline(mesh: Mesh) -> None:
    async with AsyncClient("right", mesh.endpoints) as client:
        await client.detect("faces", b"image")
    assert mesh.detection.time_left_s is not None
    assert 30 < mesh.detection.time_left_s < 90  # gRPC rounds it


async def test_many_calls_at_once_exchange_the_key_once(mesh: Mesh) -> None:
    async with AsyncClient("right", mesh.endpoints) as client:
        await asyncio.gather(*(client.detect("faces", b"image") for _ in range(20)))
    assert mesh.auth.issued == 1


async def test_a_token_is_replaced_before_it_expires(mesh: Mesh) -> None:
    async with channels.open_channel(mesh.endpoints.auth, None) as channel:
        clock = [time.time()]
        source = TokenSource(channel, "right", lambda: clock[0])
        assert (await source.get()).access_token == "t1"
        clock[0] += 0.7 * mesh.auth.life_s
        assert (await source.get()).access_token == "t1"
        clock[0] += 0.2 * mesh.auth.life_s
        assert (await source.get()).access_token == "t2"


async def test_a_refused_token_is_exchanged_anew_and_the_call_repeated_once(mesh: Mesh) -> None:
    expired = errors.Unauthenticated("Expired.", reason="TOKEN_EXPIRED")
    mesh.detection.failures = [expired]
    async with AsyncClient("right", mesh.endpoints) as client:
        await client.detect("faces", b"image")
        assert mesh.detection.calls[-1][0]["authorization"] == "Bearer t2"
        mesh.detection.failures = [expired, expired]
        with pytest.raises(errors.Unauthenticated):
            await client.detect("faces", b"image")


@pytest.mark.parametrize("kind", sorted(errors.BY_CODE.values(), key=lambda kind: kind.code))
async def test_every_status_becomes_the_exception_of_its_name(mesh: Mesh, kind: type[errors.FacetmeshError]) -> None:
    sent = kind(
        "Text.", reason="SOME_REASON", metadata={"a": "b"}, retry_after_s=1.5,
        violations=[errors.FieldViolation("image", "is none")],
    )
    mesh.detection.failures = [sent] * retries._RETRY["maxAttempts"]
    async with AsyncClient("right", mesh.endpoints) as client:
        with pytest.raises(kind) as caught:
            await client.detect("faces", b"image")
    got = caught.value
    assert (got.message, got.reason, got.metadata, got.retry_after_s) == ("Text.", "SOME_REASON", {"a": "b"}, 1.5)
    assert got.violations == sent.violations
    assert isinstance(got, facetmesh.client.FacetmeshError)


async def test_a_wrong_key_is_unauthenticated(mesh: Mesh) -> None:
    async with AsyncClient("wrong", mesh.endpoints) as client:
        with pytest.raises(errors.Unauthenticated) as caught:
            await client.detect("faces", b"image")
    assert caught.value.reason == "KEY_INVALID"


async def test_unavailable_is_retried_even_with_a_large_image(mesh: Mesh) -> None:
    mesh.detection.failures = [errors.Unavailable("Runner died.")] * 2
    async with AsyncClient("right", mesh.endpoints) as client:
        assert (await client.detect("faces", b"x" * 5_000_000)).image_width == 7
    assert len(mesh.detection.calls) == 3


@pytest.mark.parametrize("error", [errors.ResourceExhausted("Slow down."), errors.Internal("Bug.")])
async def test_nothing_else_is_retried(mesh: Mesh, error: errors.FacetmeshError) -> None:
    mesh.detection.failures = [error]
    async with AsyncClient("right", mesh.endpoints) as client:
        with pytest.raises(type(error)):
            await client.detect("faces", b"image")
    assert len(mesh.detection.calls) == 1


async def test_making_a_key_is_never_repeated(mesh: Mesh) -> None:
    async with AsyncClient("right", mesh.endpoints) as client:
        with pytest.raises(errors.Unavailable):
            await client.create_key()
    assert mesh.auth.keys_asked == 1


async def test_a_call_ends_at_its_deadline(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(retries._TIMEOUTS_S, ("facetmesh.detection.v1.DetectionService", "Detect"), 1)
    mesh.detection.stall = True
    async with AsyncClient("right", mesh.endpoints) as client:
        with pytest.raises(errors.DeadlineExceeded):
            await asyncio.wait_for(client.detect("faces", b"image"), timeout=60)


def test_what_takes_minutes_is_waited_for() -> None:
    methods = {method["name"][0].get("method"): method for method in retries.service_config()["methodConfig"]}
    assert methods["QuantizeModelVersion"]["timeout"] == "900s"
    assert "retryPolicy" not in methods["QuantizeModelVersion"]


async def test_nobody_there_is_unavailable() -> None:
    async with AsyncClient("right", Endpoints.gateway("127.0.0.1:1", None)) as client:
        with pytest.raises(errors.Unavailable):
            await client.list_tenants()


async def test_lists_come_page_after_page(mesh: Mesh) -> None:
    async with AsyncClient("right", mesh.endpoints) as client:
        assert len(await client.list_tenants()) == 2500
        assert [tenant.name for tenant in await client.list_tenants(limit=3)] == [f"tenants/t{i:04}" for i in range(3)]


async def test_a_fusion_is_waited_for_and_downloaded(mesh: Mesh) -> None:
    seen: list[int] = []
    async with AsyncClient("right", mesh.endpoints) as client:
        result = await client.fuse(b"s", b"t", face_model="faces", progress=lambda now: seen.append(now.percent))
    assert result.content == b"abcdef"
    assert result.fusion.name == "tenants/acme/fusions/f"
    assert seen == [50, 100]
    assert mesh.fusion.tokens == ["Bearer t1"], "streams carry the token too"


async def test_a_failed_fusion_raises_what_it_failed_with(mesh: Mesh) -> None:
    mesh.fusion.error = errors.InvalidArgument("No face.", reason="NO_FACE")
    async with AsyncClient("right", mesh.endpoints) as client:
        with pytest.raises(errors.InvalidArgument) as caught:
            await client.fuse(b"s", b"t", face_model="faces")
    assert caught.value.reason == "NO_FACE"


async def test_the_blocking_client_does_the_same_on_its_own_thread(mesh: Mesh) -> None:
    def work() -> tuple[int, str]:
        with Client("right", mesh.endpoints) as client:
            return client.detect("faces", b"image").image_width, client.token().tenant

    assert await asyncio.to_thread(work) == (7, "tenants/acme")


async def test_a_client_that_is_not_open_says_so_and_does_not_wait_for_ever(mesh: Mesh) -> None:
    with pytest.raises(RuntimeError, match="with Client"):
        Client("right", mesh.endpoints).token()
    with Client("right", mesh.endpoints) as client:
        pass
    with pytest.raises(RuntimeError, match="with Client"):
        client.token()
    shut = AsyncClient("right", mesh.endpoints)
    for call in (shut.detect("faces", b"image"), shut.get_model("tenants/acme/models/faces"), shut.checkpoint()):
        with pytest.raises(RuntimeError, match="with AsyncClient"):
            await call


async def test_frames_may_come_from_what_is_not_asynchronous(mesh: Mesh) -> None:
    def work() -> list[int]:
        with Client("right", mesh.endpoints) as client:
            return [answer.frame_id for answer in client.detect_stream("faces", (bytes([i]) for i in range(3)))]

    assert await asyncio.to_thread(work) == [0, 1, 2]
    assert [frame.image for frame in mesh.detection.frames] == [b"\0", b"\1", b"\2"]


async def test_what_frames_raise_is_raised(mesh: Mesh) -> None:
    def frames() -> Iterator[bytes]:
        yield b"frame"
        raise FileNotFoundError("frame2.jpg")

    async with AsyncClient("right", mesh.endpoints) as client:
        with pytest.raises(FileNotFoundError, match="frame2"):
            _ = [answer async for answer in client.detect_stream("faces", frames())]


async def test_the_service_hears_of_who_gives_up_while_the_client_stays(mesh: Mesh) -> None:
    async def frames() -> AsyncIterator[bytes]:
        yield b"frame"
        await asyncio.Event().wait()

    mesh.detection.stall = True
    async with AsyncClient("right", mesh.endpoints) as client:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.detect("faces", b"image"), 0.5)
        async with asyncio.timeout(10):
            await mesh.detection.gave_up.wait()
        async for _ in client.detect_stream("faces", frames()):
            break
        async with asyncio.timeout(10):
            await mesh.detection.stream_ended.wait()


async def test_a_stream_ends_where_the_blocking_caller_breaks_off(mesh: Mesh) -> None:
    def work() -> None:
        with Client("right", mesh.endpoints) as client:
            answers = client.detect_stream("faces", itertools.repeat(b"frame"))
            assert next(answers).frame_id == 0
            assert not mesh.detection.stream_ended.is_set()
            answers.close()  # as `break` does
            still = client.detect_stream("faces", [b"frame"])
            next(still)
        still.close()

    await asyncio.to_thread(work)
    async with asyncio.timeout(10):
        await mesh.detection.stream_ended.wait()


async def test_a_gateway_with_a_certificate_of_ones_own() -> None:
    key, certificate = self_signed("127.0.0.1")
    server = grpc.aio.server()
    auth_pb2_grpc.add_AuthServiceServicer_to_server(Auth(tenants=1), server)
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, certificate)]))
    await server.start()
    try:
        async with AsyncClient("right", Endpoints.gateway(f"127.0.0.1:{port}", Tls(certificate))) as client:
            assert len(await client.list_tenants()) == 1
        async with AsyncClient("right", Endpoints.gateway(f"127.0.0.1:{port}", Tls())) as client:
            with pytest.raises(errors.Unavailable):
                await client.list_tenants()
    finally:
        await server.stop(None)


def test_the_blocking_client_has_every_method() -> None:
    for name, method in inspect.getmembers(AsyncClient, inspect.iscoroutinefunction):
        if not name.startswith("_"):
            assert inspect.signature(getattr(Client, name)) == inspect.signature(method), name


def test_a_machine_without_a_mesh_is_told_how_to_start_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACETMESH_HOME", str(tmp_path))
    for content in (None, "no json", "[]", '{"auth": "a:1"}'):
        if content is not None:
            (tmp_path / "endpoints.json").write_text(content)
        with pytest.raises(errors.FailedPrecondition) as caught:
            Endpoints.default()
        assert caught.value.reason == "NO_ENDPOINTS"
    addresses = {name: f"{name}:1" for name in ("auth", "detection", "fusion", "audit")}
    (tmp_path / "endpoints.json").write_text(json.dumps(addresses))
    assert Endpoints.default() == Endpoints(**addresses)


def test_the_public_names_are_exactly_those_listed() -> None:
    namespace: dict[str, Any] = {}
    exec("from facetmesh.client import *", namespace)  # noqa: S102 - this is what a user writes
    assert set(namespace) - {"__builtins__"} == set(facetmesh.client.__all__)
