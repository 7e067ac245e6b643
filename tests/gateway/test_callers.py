"""Who gets in, and how he may speak: gRPC, gRPC-Web and REST; by key and by token."""

from __future__ import annotations

import base64
import json
import struct
from secrets import token_hex
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from tests.mesh.rig import Cli, until

from facetmesh.auth.v1 import auth_pb2, auth_pb2_grpc
from facetmesh.cli.mesh.home import Home
from facetmesh.client import ROLE_CALLER
from facetmesh.detection.v1 import detection_pb2
from facetmesh.kit import apikeys, status

from .conftest import another

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Gate

DEADLINE_S = 120
GET_TENANT = "/facetmesh.auth.v1.AuthService/GetTenant"


def refusal(gate: Gate, *metadata: tuple[str, str]) -> Any:
    """What GetTenant by gRPC is refused with."""
    with grpc.insecure_channel(f"127.0.0.1:{gate.ports.gateway}") as channel:
        stub = auth_pb2_grpc.AuthServiceStub(channel)
        with pytest.raises(grpc.RpcError) as refused:
            stub.GetTenant(auth_pb2.GetTenantRequest(name="tenants/acme"), metadata=metadata, timeout=DEADLINE_S)
    return status.from_rpc_error(refused.value)


def test_our_clients_go_through_it(gate: Gate, group: bytes) -> None:
    with gate.client(gate.mesh.tenant("acme")) as client:
        answer = client.detect("faces", group)
        assert client.receipt(answer.receipt).name == answer.receipt


REFUSED = {
    "nothing": ({}, "TOKEN_MISSING"),
    "no token": ({"authorization": "Bearer nonsense"}, "TOKEN_INVALID"),
    "another scheme": ({"authorization": "Basic eDp5"}, "TOKEN_MISSING"),
    "unsigned": ({"authorization": "Bearer eyJhbGciOiJub25lIn0.e30."}, "TOKEN_INVALID"),
    "no key": ({"x-api-key": "nonsense"}, "KEY_INVALID"),
    "an empty key": ({"x-api-key": ""}, "KEY_INVALID"),
    "an unknown key": ({"x-api-key": apikeys.new_key("acme", "0123456789abcdef")}, "KEY_INVALID"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_who_is_nobody_is_refused_in_the_form_he_speaks(gate: Gate, name: str) -> None:
    headers, reason = REFUSED[name]
    rest = gate.http.get("/v1/tenants/acme", headers)
    assert (rest.status, rest.reason, rest.json["code"]) == (401, reason, 16)
    error = refusal(gate, *headers.items())
    assert (error.code, error.reason, error.message) == ("UNAUTHENTICATED", reason, rest.json["message"])


def test_a_token_in_the_query_is_none(gate: Gate) -> None:
    reply = gate.http.get(f"/v1/tenants/acme?access_token={gate.token()}")
    assert reply.status in {400, 401}


def test_a_changed_token_is_none(gate: Gate) -> None:
    head, body, signature = gate.token().split(".")
    other = base64.urlsafe_b64encode(base64.urlsafe_b64decode(body + "==").replace(b"acme", b"evil")).rstrip(b"=")
    reply = gate.http.with_token(f"{head}.{other.decode()}.{signature}").get("/v1/tenants/evil")
    assert (reply.status, reply.reason) == (401, "TOKEN_INVALID")


def test_refused_keys_look_alike(gate: Gate) -> None:
    admin, tenant = gate.http.with_key(gate.mesh.admin_key), f"shut-out-{token_hex(4)}"
    assert admin.post(f"/v1/tenants?tenantId={tenant}", {}).status == 200
    with gate.mesh.client(gate.mesh.admin_key) as client:
        key = client.create_key(tenant=tenant, roles=[ROLE_CALLER]).secret
    assert gate.http.with_key(key).get(f"/v1/tenants/{tenant}").status == 200
    assert admin.post(f"/v1/tenants/{tenant}:suspend", {}).status == 200
    shut_out = until(
        lambda: (reply := gate.http.with_key(key).get(f"/v1/tenants/{tenant}")).status == 401 and reply, "it is heard"
    )
    unknown = gate.http.with_key(apikeys.new_key(tenant, "0" * 16)).get(f"/v1/tenants/{tenant}")
    assert (shut_out.status, shut_out.json) == (unknown.status, unknown.json)


def test_a_revoked_key_is_refused_soon(gate: Gate) -> None:
    gate.mesh.tenant("acme")
    with gate.mesh.client(gate.mesh.tenant("acme")) as client:
        made = client.create_key(roles=[ROLE_CALLER])
        http = gate.http.with_key(made.secret)
        assert http.get("/v1/tenants/acme").status == 200
        client.revoke_key(made.name)
    until(lambda: http.get("/v1/tenants/acme").status == 401, "the revocation is heard")


def test_a_key_wins_over_a_token_and_goes_no_further(gate: Gate) -> None:
    gate.mesh.tenant("globex")
    headers = {"x-api-key": gate.mesh.tenant("acme"), "authorization": f"Bearer {gate.token('globex')}"}
    assert gate.http.get("/v1/tenants/acme", headers).status == 200
    assert gate.http.get("/v1/tenants/globex", headers).status == 403


@pytest.mark.parametrize("text", [False, True], ids=["binary", "base64"])
def test_grpc_web(gate: Gate, *, text: bool) -> None:
    message = auth_pb2.GetTenantRequest(name="tenants/acme").SerializeToString()
    framed = struct.pack(">BI", 0, len(message)) + message
    kind = "application/grpc-web-text" if text else "application/grpc-web+proto"
    http = gate.http.with_token(gate.token())
    headers = {"content-type": kind, "accept": kind, "x-grpc-web": "1"}
    reply = http.post(GET_TENANT, base64.b64encode(framed) if text else framed, headers)
    # What is sent in base64 is encoded in pieces, each with its own padding.
    pieces = (base64.b64decode(reply.body[start : start + 4]) for start in range(0, len(reply.body), 4))
    body = b"".join(pieces) if text else reply.body
    flags, length = struct.unpack(">BI", body[:5])
    assert (reply.status, flags) == (200, 0)
    assert auth_pb2.Tenant.FromString(body[5 : 5 + length]).name == "tenants/acme"
    trailers = body[5 + length :]
    assert trailers[0] == 0x80
    assert b"grpc-status:0" in trailers


def test_grpc_web_is_refused_as_grpc_web(gate: Gate) -> None:
    headers = {"content-type": "application/grpc-web+proto", "x-grpc-web": "1"}
    reply = gate.http.post(GET_TENANT, b"\0\0\0\0\0", headers)
    assert (reply.headers["grpc-status"], reply.headers["content-type"]) == ("16", "application/grpc-web+proto")
    assert "grpc-status-details-bin" in reply.headers


def test_pages_of_known_origins_may_call(gate: Gate, tmp_path: Path) -> None:
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,x-grpc-web"}
    with another(gate, tmp_path, origins="https://app.test") as http:
        for origin, allowed in (("https://app.test", True), ("https://evil.test", False)):
            reply = http("OPTIONS", GET_TENANT, headers={"origin": origin, **asked})
            assert (reply.headers.get("access-control-allow-origin") == origin) == allowed
            assert ("x-grpc-web" in reply.headers.get("access-control-allow-headers", "")) == allowed


def test_the_model_header_is_looked_at_by_the_service(gate: Gate) -> None:
    request = detection_pb2.DetectRequest(model="tenants/acme/models/faces", image=b"x")
    with grpc.insecure_channel(f"127.0.0.1:{gate.ports.gateway}") as channel:
        call = channel.unary_unary(
            "/facetmesh.detection.v1.DetectionService/Detect", detection_pb2.DetectRequest.SerializeToString
        )
        metadata = [("x-api-key", gate.mesh.tenant("acme")), ("x-facetmesh-model", "tenants/acme/models/other")]
        with pytest.raises(grpc.RpcError) as refused:
            call(request, metadata=metadata, timeout=DEADLINE_S)
    assert status.from_rpc_error(refused.value).reason == "MODEL_HEADER_MISMATCH"


def published(gate: Gate) -> set[str]:
    """The ids of the keys that verify tokens."""
    return {one["kid"] for one in gate.http.get("/.well-known/jwks.json").json["keys"]}


def key_id(token: str) -> str:
    """Which key signed a token."""
    return str(json.loads(base64.urlsafe_b64decode(token.split(".", maxsplit=1)[0] + "=="))["kid"])


def test_a_new_signing_key_is_known_to_the_gateway(gate: Gate) -> None:
    before = published(gate)
    Cli(Home(gate.mesh.home)).ok("keys", "rotate-signing")
    token = until(lambda: key_id(one := gate.token()) not in before and one, "the new key signs")
    until(lambda: gate.http.with_token(token).get("/v1/tenants/acme").status == 200, "the gateway knows it")
