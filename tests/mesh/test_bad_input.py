"""What hostile or clumsy callers send: each gets a status with an ErrorInfo, at once, and the mesh goes on."""

from __future__ import annotations

import io
import socket
import struct
import time
import zlib
from typing import TYPE_CHECKING

import grpc
import jwt
import pytest

from facetmesh.auth.v1 import auth_pb2, auth_pb2_grpc
from facetmesh.client import FacetmeshError, FusionOptions
from facetmesh.detection.v1 import detection_pb2, detection_pb2_grpc
from facetmesh.kit import status

from .conftest import FACES, Mesh
from .rig import consented

if TYPE_CHECKING:
    from collections.abc import Callable

LIMIT_S = 30.0
"""Refusals take milliseconds; what is asserted allows for a machine that does other things too."""
MODEL = "tenants/acme/models/faces"


def png_header(width: int, height: int) -> bytes:
    """A PNG that says it is this large and has no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)) + chunk(
        b"IDAT", zlib.compress(b"\0")
    ) + chunk(b"IEND", b"")  # fmt: skip


@pytest.fixture(scope="session")
def warm(mesh: Mesh, group: bytes) -> None:
    """A runner that is up: what is timed below is the refusal."""
    with mesh.client(mesh.tenant("acme")) as client:
        client.detect("faces", group)


@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize(
    ("image", "code", "reason"),
    [
        pytest.param(lambda _: b"this is not an image", "INVALID_ARGUMENT", "IMAGE_NOT_RECOGNIZED", id="text"),
        pytest.param(lambda g: g[: len(g) // 2], "INVALID_ARGUMENT", "IMAGE_TRUNCATED", id="truncated"),
        pytest.param(lambda _: png_header(60_000, 60_000), "INVALID_ARGUMENT", "IMAGE_TOO_LARGE", id="bomb"),
        pytest.param(lambda _: bytes(30_000_000), "INVALID_ARGUMENT", "FIELD_INVALID", id="30-mb-of-zeros"),
        pytest.param(lambda _: bytes(50_000_000), "RESOURCE_EXHAUSTED", "RESOURCE_EXHAUSTED", id="50-mb-of-zeros"),
        pytest.param(lambda _: bytes(1_000_000), "INVALID_ARGUMENT", "IMAGE_NOT_RECOGNIZED", id="1-mb-of-zeros"),
        pytest.param(lambda _: b"", "INVALID_ARGUMENT", "FIELD_INVALID", id="nothing"),
    ],
)
def test_images(
    mesh: Mesh, group: bytes, image: Callable[[bytes], bytes], code: str, reason: str
) -> None:
    content = image(group)
    with mesh.client(mesh.tenant("acme")) as client:
        client.token()
        began = time.monotonic()
        with pytest.raises(FacetmeshError) as refusal:
            client.detect("faces", content)
        took_s = time.monotonic() - began
        assert (refusal.value.code, refusal.value.reason) == (code, reason)
        assert "Traceback" not in refusal.value.message
        assert len(client.detect("faces", group, labels=FACES).detections) == 6
    assert took_s < LIMIT_S


@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        ({"model": "nobody"}, "NOT_FOUND", "MODEL_NOT_FOUND"),
        ({"model": "No!"}, "INVALID_ARGUMENT", "FIELD_INVALID"),
        ({"labels": ["UNICORN"]}, "INVALID_ARGUMENT", "UNKNOWN_LABEL"),
        ({"min_confidence": 2.0}, "INVALID_ARGUMENT", "FIELD_INVALID"),
        ({"min_confidence": float("nan")}, "INVALID_ARGUMENT", "FIELD_INVALID"),
        ({"max_detections": -1}, "INVALID_ARGUMENT", "FIELD_INVALID"),
        ({"priority": 10}, "INVALID_ARGUMENT", "FIELD_INVALID"),
    ],
)
def test_arguments(mesh: Mesh, group: bytes, arguments: dict[str, object], code: str, reason: str) -> None:
    with mesh.client(mesh.tenant("acme")) as client, pytest.raises(FacetmeshError) as refusal:
        client.detect(**{"model": "faces", "image": group, **arguments})
    assert (refusal.value.code, refusal.value.reason) == (code, reason)


def test_a_model_whose_licence_was_not_accepted(mesh: Mesh) -> None:
    with mesh.client(mesh.tenant("acme")) as client:
        for accepted in ("", "MIT"):
            with pytest.raises(FacetmeshError) as refusal:
                client.create_model("more-faces", catalog_id="nudenet-320n", accept_licence=accepted)
            assert (refusal.value.code, refusal.value.reason) == ("FAILED_PRECONDITION", "LICENCE_NOT_ACCEPTED")
            assert "AGPL-3.0" in refusal.value.message


def test_the_model_header_must_agree(mesh: Mesh, group: bytes) -> None:
    with mesh.client(mesh.tenant("acme")) as client, grpc.insecure_channel(mesh.endpoints.detection) as channel:
        token = client.token().access_token
        stub = detection_pb2_grpc.DetectionServiceStub(channel)
        metadata = (("authorization", f"Bearer {token}"), ("x-facetmesh-model", "tenants/acme/models/other"))
        error = refused(lambda: stub.Detect(detection_pb2.DetectRequest(model=MODEL, image=group), metadata=metadata))
    assert (error.code, error.reason) == ("INVALID_ARGUMENT", "MODEL_HEADER_MISMATCH")


def refused(call: Callable[[], object]) -> FacetmeshError:
    """What a raw gRPC call was refused with; it must carry an ErrorInfo."""
    began = time.monotonic()
    with pytest.raises(grpc.RpcError) as raised:
        call()
    assert time.monotonic() - began < LIMIT_S
    details = dict(raised.value.trailing_metadata())
    assert status.DETAILS_KEY in details
    return status.from_rpc_error(raised.value)


def forged(token: str, how: str) -> str:
    """A token that must not hold."""
    head, _body, signature = token.split(".")
    claims = jwt.decode(token, options={"verify_signature": False})
    match how:
        case "none":
            return jwt.encode(claims, None, "none", headers=jwt.get_unverified_header(token) | {"alg": "none"})
        case "hs256":
            return jwt.encode(claims, "secret" * 8, "HS256", headers={"kid": "x", "typ": "at+jwt"})
        case "body":
            other = jwt.encode(claims | {"tenant": "tenants/globex"}, "secret" * 8, "HS256").split(".")[1]
            return f"{head}.{other}.{signature}"
        case _:
            return how


@pytest.mark.parametrize(
    ("how", "reason"),
    [("none", "TOKEN_INVALID"), ("hs256", "TOKEN_INVALID"), ("body", "TOKEN_INVALID"), ("garbage", "TOKEN_INVALID"),
     ("x" * 7000, "TOKEN_INVALID"), ("", "TOKEN_MISSING")],
    ids=["alg-none", "hs256", "other-claims", "garbage", "huge", "missing"],
)  # fmt: skip
def test_tokens(mesh: Mesh, group: bytes, how: str, reason: str) -> None:
    with mesh.client(mesh.tenant("acme")) as client, grpc.insecure_channel(mesh.endpoints.detection) as channel:
        token = forged(client.token().access_token, how)
        metadata = (("authorization", f"Bearer {token}"),) if token else ()
        stub = detection_pb2_grpc.DetectionServiceStub(channel)
        error = refused(lambda: stub.Detect(detection_pb2.DetectRequest(model=MODEL, image=group), metadata=metadata))
    assert (error.code, error.reason) == ("UNAUTHENTICATED", reason)


def test_another_tenants_token(mesh: Mesh, group: bytes) -> None:
    with mesh.client(mesh.tenant("globex")) as client, grpc.insecure_channel(mesh.endpoints.detection) as channel:
        metadata = (("authorization", f"Bearer {client.token().access_token}"),)
        stub = detection_pb2_grpc.DetectionServiceStub(channel)
        error = refused(lambda: stub.Detect(detection_pb2.DetectRequest(model=MODEL, image=group), metadata=metadata))
    assert (error.code, error.reason) == ("PERMISSION_DENIED", "TENANT_MISMATCH")


@pytest.mark.parametrize("key", ["x", "fm_acme_k_secret", "fm_platform_admin_" + "0" * 49, "ü"])
def test_keys(mesh: Mesh, key: str) -> None:
    with grpc.insecure_channel(mesh.endpoints.auth) as channel:
        stub = auth_pb2_grpc.AuthServiceStub(channel)
        error = refused(lambda: stub.IssueToken(auth_pb2.IssueTokenRequest(key=key)))
    assert (error.code, error.reason) == ("UNAUTHENTICATED", "KEY_INVALID")


def test_a_fusion_without_faces(mesh: Mesh, astronaut: bytes) -> None:
    from PIL import Image  # noqa: PLC0415 - only here

    blank = io.BytesIO()
    Image.new("RGB", (640, 480), (90, 120, 150)).save(blank, "PNG")
    with mesh.client(mesh.tenant("acme")) as client, pytest.raises(FacetmeshError) as refusal:
        client.fuse(astronaut, blank.getvalue(), face_model="faces", consent=consented(client, astronaut))
    assert refusal.value.reason == "NO_FACE"
    assert "target" in refusal.value.message


@pytest.mark.parametrize(
    "options",
    [FusionOptions(backend="insightface"), FusionOptions(reference=b"whoever"), FusionOptions(sex="male", max_age=60)],
)
def test_models_that_the_operator_has_not(mesh: Mesh, astronaut: bytes, options: FusionOptions) -> None:
    with mesh.client(mesh.tenant("acme")) as client, pytest.raises(FacetmeshError) as refusal:
        client.create_fusion(astronaut, astronaut, face_model="faces", options=options)
    assert (refusal.value.code, refusal.value.reason) == ("FAILED_PRECONDITION", "BACKEND_MISSING")


@pytest.mark.parametrize("message", [b"\xff\xff\xff\xff", b"\x0a\x03\xff\xfe\xfd"], ids=["garbage", "no-utf-8"])
def test_what_is_no_message(mesh: Mesh, message: bytes) -> None:
    with mesh.client(mesh.tenant("acme")) as client, grpc.insecure_channel(mesh.endpoints.detection) as channel:
        metadata = (("authorization", f"Bearer {client.token().access_token}"),)
        call = channel.unary_unary("/facetmesh.detection.v1.DetectionService/Detect")
        error = refused(lambda: call(message, metadata=metadata))
    assert (error.code, error.reason) == ("INVALID_ARGUMENT", "MESSAGE_MALFORMED")


@pytest.mark.parametrize("service", ["facetmesh.detection.v1.DetectionService", "no.such.Service"])
def test_a_method_that_there_is_not(mesh: Mesh, service: str) -> None:
    with grpc.insecure_channel(mesh.endpoints.detection) as channel:
        call = channel.unary_unary(f"/{service}/DropTables")
        error = refused(lambda: call(b""))
    assert (error.code, error.reason) == ("UNIMPLEMENTED", "METHOD_UNKNOWN")


def frame(kind: int, stream: int, data: bytes = b"") -> bytes:
    """A frame of HTTP/2 that is whole."""
    return len(data).to_bytes(3) + bytes([kind, 5 if stream else 0]) + stream.to_bytes(4) + data


def test_headers_that_are_none_leave_no_lines(mesh: Mesh) -> None:
    """Strangers could fill the disk with them."""
    log = mesh.home / "logs" / "detection.jsonl"
    pairs = ((b":method", b"POST"), (b":scheme", b"none"), (b":path", b"/a/b"), (b":authority", b"here"))
    headers = b"".join(b"\0" + b"".join(bytes([len(one)]) + one for one in pair) for pair in pairs)
    host, _, port = mesh.endpoints.detection.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=LIMIT_S) as connection, connection.makefile("rb") as come:
        opened = b"".join(frame(1, number, headers) for number in range(1, 200, 2))
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0) + opened)
        answered = 0
        while answered < 199:
            head = come.read(9)
            come.read(int.from_bytes(head[:3]))
            answered = max(answered, int.from_bytes(head[5:9]))
    assert [line for line in log.read_text().splitlines() if not line.startswith("{")] == []
