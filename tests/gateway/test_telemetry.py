"""What the gateway tells of its work, and what it keeps to itself."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from tests.mesh.rig import until

from .conftest import answers

if TYPE_CHECKING:
    from typing import Any

    from .conftest import Gate


def requests(gate: Gate) -> list[dict[str, Any]]:
    """The lines of the access log."""
    return [one for one in gate.mesh.log("gateway") if one.get("message") == "request"]


def test_each_request_is_a_line_without_secrets(gate: Gate) -> None:
    key, token = gate.mesh.tenant("acme"), gate.token()
    marked = "/v1/tenants/telemetry"
    assert gate.http.with_key(key).get(f"{marked}?x={key}").status == 400
    assert gate.http.with_token(token).get(marked).status == 403
    assert gate.http.get(marked, {"authorization": f"Bearer {token}x y"}).status == 401

    def by_status() -> dict[int, dict[str, Any]]:
        return {one["status"]: one for one in requests(gate) if one.get("path") == marked}

    line = until(lambda: len(found := by_status()) == 3 and found, "a line for each")[403]
    assert (line["method"], line["tenant"], line["rpc"]) == (
        "GET", "tenants/acme", "/facetmesh.auth.v1.AuthService/GetTenant",
    )
    assert line["subject"].startswith("tenants/acme/keys/")
    assert line["source"] == "127.0.0.1"
    for secret in (key, token, token.rpartition(".")[2], gate.mesh.admin_key):
        assert secret not in gate.log


def test_what_is_no_request_is_a_line_without_a_path(gate: Gate) -> None:
    with socket.create_connection(("127.0.0.1", gate.ports.gateway), timeout=60) as stranger:
        stranger.sendall(b"\x16\x03\x01 no HTTP\r\n\r\n")
        assert stranger.recv(64).startswith(b"HTTP/1.1 400 ")
    until(
        lambda: any(one.get("flags") == "DPE" and "path" not in one for one in requests(gate)), "a line for it"
    )


def test_a_trace_leads_through_it(gate: Gate) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    headers = {"traceparent": f"00-{trace}-b7ad6b7169203331-01"}
    assert gate.http.with_key(gate.mesh.tenant("acme")).get("/v1/tenants/acme/models", headers).status == 200

    def edges() -> set[tuple[str, str]]:
        spans = {one.span_id: one for one in gate.mesh.collector.spans() if one.trace_id == trace}
        return {
            (spans[one.parent_id].service, one.service) for one in spans.values() if one.parent_id in spans
        }

    until(lambda: ("facetmesh-gateway", "facetmesh-detection") in edges(), "the gateway's span and detection's")


def test_an_audit_event_names_the_source_that_the_gateway_saw(gate: Gate) -> None:
    gate.mesh.tenant("acme")
    forged = {"x-facetmesh-source": "203.0.113.9", "x-facetmesh-gateway": "guessed"}
    made = gate.http.with_key(gate.mesh.tenant("acme")).post("/v1/tenants/acme/keys", {}, forged)
    assert made.status == 200
    with gate.mesh.client(gate.mesh.tenant("acme")) as client:
        def found() -> list[str]:
            named = client.list_events(filter=f'resource = "{made.json["name"]}"')
            return [one.event.source_address for one in named]

        assert until(found, "the event is in the log") == ["127.0.0.1"]


def test_only_what_is_needed_of_its_administration_is_open(gate: Gate) -> None:
    base = f"http://127.0.0.1:{gate.ports.gateway_admin}"
    assert answers(f"{base}/ready")
    assert answers(f"{base}/stats/prometheus")
    assert not answers(f"{base}/config_dump")
    assert not answers(f"{base}/")
