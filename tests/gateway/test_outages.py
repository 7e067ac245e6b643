"""What callers hear when a part is away."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import grpc
import pytest
from tests.mesh.rig import until

from facetmesh.detection.v1 import detection_pb2
from facetmesh.kit import status

from .conftest import another, answers

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Gate


def test_a_service_that_is_away(gate: Gate, tmp_path: Path) -> None:
    token = gate.token()
    with another(gate, tmp_path, dead=("detection",)) as http:
        reply = http.with_token(token).get("/v1/tenants/acme/models")
        assert (reply.status, reply.reason) == (503, "SERVICE_UNREACHABLE")
        with grpc.insecure_channel(f"127.0.0.1:{http.port}") as channel:
            call = channel.unary_unary("/facetmesh.detection.v1.DetectionService/Detect")
            with pytest.raises(grpc.RpcError) as refused:
                call(detection_pb2.DetectRequest().SerializeToString(), metadata=[("authorization", f"Bearer {token}")],
                     timeout=60)  # fmt: skip
        heard = status.from_rpc_error(refused.value)
        assert (heard.code, heard.reason, heard.retry_after_s) == ("UNAVAILABLE", "SERVICE_UNREACHABLE", 1.0)
        assert http.with_token(token).get("/v1/tenants/acme").status == 200
        until(lambda: http.get("/healthz").status == 503, "the gateway is not healthy without detection")


def test_a_killed_gateway_is_replaced(gate: Gate) -> None:
    killed = gate.mesh.pid("gateway")
    os.kill(killed, signal.SIGKILL)
    until(lambda: gate.mesh.has_replaced("gateway", killed) and answers(f"http://127.0.0.1:{gate.ports.gateway}/healthz"),
          "it serves again")  # fmt: skip
    assert gate.http.with_key(gate.mesh.tenant("acme")).get("/v1/tenants/acme").status == 200


def test_without_auth_nobody_new_gets_in(gate: Gate, tmp_path: Path) -> None:
    key, token = gate.mesh.tenant("acme"), gate.token()
    with another(gate, tmp_path, dead=("ext_authz",)) as http:
        reply = http.with_key(key).get("/v1/tenants/acme")
        assert (reply.status, reply.reason) == (503, "AUTH_UNREACHABLE")
        assert http.with_token(token).get("/v1/tenants/acme").status == 200
    with another(gate, tmp_path, dead=("keys",)) as http:
        reply = http.with_token(token).get("/v1/tenants/acme")
        assert (reply.status, reply.reason) == (503, "AUTH_UNREACHABLE")
