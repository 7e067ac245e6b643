"""The gateway's configuration: what follows from the protos, and that Envoy takes it."""

from __future__ import annotations

import base64
import json
import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf import descriptor_pb2
from google.rpc import status_pb2
from tests.security.api import METHODS, path

from facetmesh.cli.gateway import api, replies, settings
from facetmesh.cli.gateway.bootstrap import BOOTSTRAP, Sites, configuration, filled
from facetmesh.cli.mesh import binaries
from facetmesh.cli.mesh.gateway import Envoy
from facetmesh.kit import access, status
from facetmesh.kit.errors import FailedPrecondition

if TYPE_CHECKING:
    from pathlib import Path

SITES = Sites(
    gateway=21000, admin=21050, keys=21051, ext_authz=21052,
    services={"auth": (21001,), "detection": (21002,), "fusion": (21003,), "audit": (21004,)},
)  # fmt: skip


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment with nothing in it that a gateway heeds."""
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "FACETMESH_GATEWAY_TLS"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def bootstrap(folder: Path) -> dict[str, Any]:
    """The bootstrap that the environment asks for."""
    made: dict[str, Any] = json.loads(configuration(settings.load(), SITES, folder)[BOOTSTRAP])
    return made


def manager(made: dict[str, Any]) -> dict[str, Any]:
    """The HTTP connection manager of a bootstrap."""
    chain = made["static_resources"]["listeners"][0]["filter_chains"][0]
    found: dict[str, Any] = chain["filters"][0]["typed_config"]
    return found


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {
            "FACETMESH_GATEWAY_ORIGINS": "https://a.test,https://b.test:8443",
            "FACETMESH_GATEWAY_TRUSTED_HOPS": "2",
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4317",
        },
    ],
    ids=["plain", "everything"],
)
def test_envoy_takes_it(told: pytest.MonkeyPatch, tmp_path: Path, environment: dict[str, str]) -> None:
    for name, value in environment.items():
        told.setenv(name, value)
    envoy = Envoy(binaries.envoy(), tmp_path / "gateway", settings.load(), SITES)
    done = subprocess.run([*envoy.command(), "--mode", "validate"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_every_method_for_callers_has_a_route_and_no_other(told: pytest.MonkeyPatch, tmp_path: Path) -> None:
    del told
    [host] = manager(bootstrap(tmp_path))["route_config"]["virtual_hosts"]
    *exact, rest = host["routes"]
    assert rest["match"]["headers"][0]["invert_match"], "what is gRPC must not take REST's route"
    routes = {route["match"]["path"]: route["route"] for route in exact if "route" in route}
    for method in METHODS:
        inside_only = access.rule("/" + path(method)).roles == {"service"}
        assert (f"/{path(method)}" in routes) != inside_only
    assert routes["/inference.GRPCInferenceService/ModelInfer"]["cluster"] == "detection"
    assert routes["/facetmesh.fusion.v1.FusionService/DownloadFusion"]["timeout"] == "0s"
    assert routes["/facetmesh.fusion.v1.FusionService/WaitOperation"]["timeout"] == "65s"
    assert routes["/facetmesh.auth.v1.AuthService/RotateKey"]["timeout"] == "60s"


def test_a_token_is_asked_for_by_all_but_public_methods(told: pytest.MonkeyPatch, tmp_path: Path) -> None:
    del told
    by_name = {one["name"]: one["typed_config"] for one in manager(bootstrap(tmp_path))["http_filters"]}
    *public, last = by_name["envoy.filters.http.jwt_authn"]["rules"]
    assert last == {"match": {"prefix": "/"}, "requires": {"provider_name": "facetmesh"}}
    paths = {f"/{path(method)}" for method in METHODS if access.rule("/" + path(method)).public}
    assert not [rule for rule in public if "requires" in rule]
    exact = {rule["match"]["path"] for rule in public if "path" in rule["match"]}
    assert exact == paths | {"/openapi.json", "/.well-known/jwks.json"}
    rest = [rule["match"]["safe_regex"]["regex"] for rule in public if "path" not in rule["match"]]
    for one, public_too in [("/v1/tokens:issue", True), ("/v1/checkpoint", True), ("/v1/tenants", False),
                            ("/v1/tenants/acme/keys", False), ("/v1/checkpoint/x", False),
                            ("/v1/tenants/acme/fusions/f:fetch", True), ("/v1/tenants/acme/fusions/f", False),
                            ("/v1/tenants/acme/fusions/f:download", False)]:  # fmt: skip
        assert any(re.fullmatch(regex, one) for regex in rest) == public_too


def test_the_descriptor_set_is_whole() -> None:
    files = descriptor_pb2.FileDescriptorSet.FromString(api.descriptor_set()).file
    seen: set[str] = set()
    for file in files:  # each after those that it imports, as Envoy wants them
        assert seen.issuperset(file.dependency)
        seen.add(file.name)
    assert {"google/rpc/error_details.proto", "facetmesh/fusion/v1/fusion.proto"} <= seen
    assert "facetmesh.detection.v1.DetectionService" in api.rest_services()


def test_each_refusal_of_the_gateway_has_a_reason_in_both_forms() -> None:
    mappers = replies.local_replies()["mappers"]
    assert len(mappers) >= 20
    for grpc, rest in zip(mappers[::2], mappers[1::2], strict=True):
        said = status_pb2.Status.FromString(base64.b64decode(grpc["headers_to_add"][0]["header"]["value"]))
        error = status.from_status(said)
        assert error.reason != "INTERNAL"
        body = rest["body_format_override"]["json_format"]
        assert (body["code"], body["message"], body["details"][0]["reason"]) == (said.code, said.message, error.reason)


def test_places_are_filled_and_those_without_a_value_go() -> None:
    node = {"a": "${x}", "b": ["${none}", {"c": "${none}", "d": "a ${x} b"}]}
    assert filled(node, {"x": [1], "none": None}) == {"a": [1], "b": [{"d": "a ${x} b"}]}
    with pytest.raises(KeyError):
        filled("${typo}", {})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FACETMESH_GATEWAY_TRUSTED_HOPS", "many"),
        ("FACETMESH_GATEWAY_TENANT_PER_S", "0"),
        ("FACETMESH_GATEWAY_ORIGINS", "*"),
        ("FACETMESH_GATEWAY_ORIGINS", "https://a.test/path"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://x"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"),
        ("FACETMESH_GATEWAY_TLS", "/nowhere"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(told: pytest.MonkeyPatch, tmp_path: Path, name: str, value: str) -> None:
    told.setenv(name, value)
    with pytest.raises(FailedPrecondition, match=f"{name}|/nowhere/tls.crt"):
        bootstrap(tmp_path)


@pytest.mark.parametrize(
    ("template", "path", "matches"),
    [
        ("/v1/log/{path=**}", "/v1/log/tile/0/x001", True),
        ("/v1/log/{path=**}", "/v1/log", False),
        ("/v1/{name=tenants/*/keys/*}:revoke", "/v1/tenants/a/keys/b:revoke", True),
        ("/v1/{name=tenants/*/keys/*}:revoke", "/v1/tenants/a/keys/b/c:revoke", False),
        ("/v1/{name}", "/v1/a", True),
        ("/v1/a.b", "/v1/aXb", False),
    ],
)
def test_path_templates(template: str, path: str, matches: bool) -> None:  # noqa: FBT001 - pytest's
    assert bool(re.fullmatch(api._regex(template), path)) == matches
