"""Where floods end and what is too large."""

from __future__ import annotations

import base64
from concurrent.futures import ThreadPoolExecutor
from secrets import token_hex
from typing import TYPE_CHECKING

import grpc
from tests.mesh.rig import until

from facetmesh.auth.v1 import auth_pb2, auth_pb2_grpc
from facetmesh.kit import status

from .conftest import another

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Gate
    from .http import Http, Reply

FLOOD = 120
"""More than the least that can be set lets through in the time that it takes: one a second, two at once."""


def flood(http: Http, path: str) -> list[Reply]:
    """Many requests, as quickly as they go."""
    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(lambda _: http.get(path), range(FLOOD)))


def test_one_tenants_flood_ends_and_another_is_served(gate: Gate, tmp_path: Path) -> None:
    acme, globex = gate.token("acme"), gate.token("globex")
    with another(gate, tmp_path, tenant_per_s=1) as http:
        replies = flood(http.with_token(acme), "/v1/tenants/acme")
        refused = [one for one in replies if one.status == 429]
        assert refused
        assert any(one.status == 200 for one in replies)
        assert {(one.reason, one.json["code"]) for one in refused} == {("RATE_LIMITED", 8)}
        assert any(one["@type"].endswith("google.rpc.RetryInfo") for one in refused[0].json["details"])
        assert http.with_token(globex).get("/v1/tenants/globex").status == 200


def test_grpc_hears_of_a_flood_as_grpc(gate: Gate, tmp_path: Path) -> None:
    metadata = [("authorization", f"Bearer {gate.token()}")]
    with another(gate, tmp_path, tenant_per_s=1) as http:
        flood(http.with_token(gate.token()), "/v1/tenants/acme")
        with grpc.insecure_channel(f"127.0.0.1:{http.port}") as channel:
            stub = auth_pb2_grpc.AuthServiceStub(channel)
            errors = []
            for _ in range(FLOOD):
                try:
                    stub.GetTenant(auth_pb2.GetTenantRequest(name="tenants/acme"), metadata=metadata, timeout=60)
                except grpc.RpcError as error:
                    errors.append(status.from_rpc_error(error))
        assert {(one.code, one.reason, one.retry_after_s) for one in errors} == {
            ("RESOURCE_EXHAUSTED", "RATE_LIMITED", 1.0)
        }


def test_one_address_has_its_limit_and_those_without_a_token_a_lower_one(gate: Gate, tmp_path: Path) -> None:
    # Of a plan that limits nothing: on a fast machine auth would refuse some of acme's for their number.
    name, tenant = f"unlimited-{token_hex(4)}", auth_pb2.Tenant(plan="plans/dedicated")
    with gate.mesh.client(gate.mesh.admin_key) as admin:
        key = admin.onboard_tenant(name, tenant=tenant).key.secret
    token = gate.http.post("/v1/tokens:issue", {"key": key}).json["accessToken"]
    with another(gate, tmp_path, anonymous_per_s=1) as http:
        assert {one.status for one in flood(http, f"/v1/tenants/{name}")} == {401, 429}
        assert {one.status for one in flood(http.with_token(token), f"/v1/tenants/{name}")} == {200}
    with another(gate, tmp_path, source_per_s=1) as http:
        assert {one.status for one in flood(http.with_token(token), f"/v1/tenants/{name}")} == {200, 429}


def test_what_a_proxy_says_of_the_source_counts_only_where_it_is_trusted(gate: Gate, tmp_path: Path) -> None:
    def each_from_elsewhere(http: Http) -> set[int]:
        with ThreadPoolExecutor(16) as pool:
            replies = pool.map(
                lambda number: http.get("/v1/tenants/acme", {"x-forwarded-for": f"198.51.100.{number}"}), range(FLOOD)
            )
            return {one.status for one in replies}

    with another(gate, tmp_path, anonymous_per_s=1) as http:
        assert each_from_elsewhere(http) == {401, 429}
    with another(gate, tmp_path, anonymous_per_s=1, trusted_hops=1) as http:
        assert each_from_elsewhere(http) == {401}


def test_an_image_of_20_mb_passes_and_a_larger_request_does_not(gate: Gate) -> None:
    http = gate.http.with_key(gate.mesh.tenant("acme"))
    image = b"\xff\xd8\xff" + bytes(19_999_997)
    body = {"image": base64.b64encode(image).decode()}

    def refused() -> Reply | None:
        reply = http.post("/v1/tenants/acme/models/faces:detect", body)
        return reply if reply.status != 503 else None  # where much else runs, it may be told to come again

    reply = until(refused, "it is looked at")
    assert (reply.status, reply.reason) == (400, "IMAGE_TRUNCATED"), reply.body  # a runner has seen it
    reply = http.post("/v1/tenants/acme/models/faces:detect", {"image": "A" * 60_000_000})
    assert (reply.status, reply.reason) == (413, "REQUEST_TOO_LARGE")


def test_headers_have_their_limits(gate: Gate) -> None:
    large = gate.http.get("/v1/checkpoint", {"x-large": "x" * 20_000})
    assert (large.status, large.reason) == (431, "HEADERS_TOO_LARGE")
    many = gate.http.get("/v1/checkpoint", {f"x-{number}": "1" for number in range(100)})
    assert many.status == 431
    # Some servers read a_b as a-b.
    assert gate.http.get("/v1/checkpoint", {"x_api_key": "1"}).status == 400
    assert gate.http.get("/v1/tenants/acme%2Fmodels").status == 400
