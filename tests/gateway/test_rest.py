"""The API as REST and JSON."""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime, timedelta
from secrets import token_hex
from typing import TYPE_CHECKING

import pytest
from tests.mesh.rig import until

if TYPE_CHECKING:
    from .conftest import Gate

FACES = {"labels": ["FACE_FEMALE", "FACE_MALE"]}


def test_a_photo_is_detected_on(gate: Gate, group: bytes) -> None:
    http = gate.http.with_key(gate.mesh.tenant("acme"))
    body = {"image": base64.b64encode(group).decode(), **FACES}
    reply = http.post("/v1/tenants/acme/models/faces:detect", body)
    assert reply.status == 200, reply.body
    assert len(reply.json["detections"]) == 6
    with gate.mesh.client(gate.mesh.tenant("acme")) as client:
        direct = client.detect("faces", group, labels=FACES["labels"])
    assert [one["label"] for one in reply.json["detections"]] == [one.label for one in direct.detections]
    path = f"/v1/{reply.json['receipt']}?wait=10s"
    receipt = until(lambda: found if (found := http.get(path)).status != 404 else None, "it comes")
    assert receipt.status == 200, receipt.body
    assert receipt.json["name"] == reply.json["receipt"]


def test_the_key_goes_by_token_too(gate: Gate) -> None:
    http = gate.http.with_token(gate.token())
    listed = http.get("/v1/tenants/acme/models?pageSize=10")
    assert [one["name"] for one in listed.json["models"]] == ["tenants/acme/models/faces"]
    assert http.get("/v1/tenants/acme/models/faces").json["catalogId"] == "nudenet-320n"


def test_tenants_are_made_changed_and_ended(gate: Gate) -> None:
    admin, tenant = gate.http.with_key(gate.mesh.admin_key), f"rest-made-{token_hex(4)}"
    made = admin.post(f"/v1/tenants?tenantId={tenant}", {"displayName": "Made"})
    assert (made.status, made.json["name"]) == (200, f"tenants/{tenant}")
    changed = admin("PATCH", f"/v1/tenants/{tenant}", {"displayName": "Changed"})
    assert changed.json["displayName"] == "Changed"
    assert admin.post(f"/v1/tenants/{tenant}:suspend").json["state"] == "STATE_SUSPENDED"
    assert admin("DELETE", f"/v1/tenants/{tenant}").json["state"] == "STATE_DELETED"
    assert admin.post(f"/v1/tenants?tenantId={tenant}", {}).status == 409


def test_a_fusion_is_made_watched_and_fetched(gate: Gate, group: bytes, astronaut: bytes) -> None:
    http = gate.http.with_key(gate.mesh.tenant("acme"))
    consent = http.post("/v1/tenants/acme/consents", {
        "subject": "somebody", "purpose": "a test", "evidenceSha256": "00" * 32,
        "faces": [{"imageSha256": hashlib.sha256(astronaut).hexdigest()}],
        "expireTime": (datetime.now(UTC) + timedelta(hours=1)).isoformat(),
    })  # fmt: skip
    assert consent.status == 200, consent.body
    fusion = {
        "sourceImage": base64.b64encode(astronaut).decode(), "targetImage": base64.b64encode(group).decode(),
        "faceModel": "tenants/acme/models/faces", "consent": consent.json["name"],
    }  # fmt: skip
    operation = http.post("/v1/tenants/acme/fusions", fusion)
    assert operation.status == 200, operation.body
    done = until(
        lambda: now if (now := http.post(f"/v1/{operation.json['name']}:wait", {"timeout": "60s"}).json).get("done")
        else None, "it is done",
    )  # fmt: skip
    assert "response" in done, done
    assert done["response"]["@type"] == "type.googleapis.com/facetmesh.fusion.v1.Fusion"
    image = http.get(f"/v1/{done['response']['name']}:download")
    assert image.status == 200
    assert image.headers["content-type"] == done["response"]["mediaType"]
    assert len(image.body) == int(done["response"]["sizeBytes"])
    with gate.client(gate.mesh.tenant("acme")) as client:  # a stream by gRPC
        assert client.download_fusion(done["response"]["name"]) == image.body
    link = http.post(f"/v1/{done['response']['name']}:link", {"lifetime": "300s"}).json
    fetched = gate.http.get(link["path"])  # by whoever has it
    assert (fetched.status, fetched.headers["content-type"]) == (200, done["response"]["mediaType"])
    assert fetched.body == image.body
    forged = gate.http.get(f"{link['path'][:-2]}{'AA' if link['path'][-2:] != 'AA' else 'BB'}")
    assert (forged.status, forged.reason) == (403, "LINK_INVALID")
    assert link["path"].partition("token=")[2] not in gate.log


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "reason"),
    [
        ("GET", "/v1/tenants/acme/models?colour=red", None, 400, "REQUEST_MALFORMED"),
        ("GET", "/v1/tenants/acme/models?pageSize=-1", None, 400, "FIELD_INVALID"),
        ("GET", "/v1/tenants/acme/models?pageSize=x", None, 400, "REQUEST_MALFORMED"),
        ("GET", "/v1/tenants/acme/models/nothing", None, 404, "MODEL_NOT_FOUND"),
        ("GET", "/v1/tenants/globex", None, 403, "TENANT_MISMATCH"),
        ("GET", "/v1/nothing", None, 404, "METHOD_UNKNOWN"),
        ("GET", "/", None, 404, "METHOD_UNKNOWN"),
        ("PUT", "/v1/tenants/acme", {}, 404, "METHOD_UNKNOWN"),
        ("POST", "/v1/tenants/acme/models/faces:detect", b"{", 400, "REQUEST_MALFORMED"),
        ("POST", "/v1/tenants/acme/models/faces:detect", b"\xff\xd8\xff", 400, "REQUEST_MALFORMED"),
        ("POST", "/v1/tenants/acme/models/faces:detect", {"image": "no base64!"}, 400, "REQUEST_MALFORMED"),
        ("POST", "/v1/tenants/acme/models/faces:detect", {"image": "bm90IGFuIGltYWdl"}, 400, "IMAGE_NOT_RECOGNIZED"),
        ("POST", "/v1/tenants/acme/models/faces:detect", {"model": "tenants/globex/models/faces"}, 400,
         "REQUEST_MALFORMED"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_a_reason(
    gate: Gate, method: str, path: str, body: object, status: int, reason: str
) -> None:
    reply = gate.http.with_key(gate.mesh.tenant("acme"))(method, path, body)
    assert (reply.status, reply.headers["content-type"]) == (status, "application/json")
    assert reply.reason == reason


def test_methods_that_services_call_are_not_reached(gate: Gate) -> None:
    headers = {"content-type": "application/grpc", "te": "trailers"}
    reply = gate.http.with_token(gate.token()).post(
        "/facetmesh.auth.v1.AuthService/WatchRevocations", b"\0\0\0\0\0", headers
    )
    assert reply.headers["grpc-status"] == "12"


def test_the_pages_for_everybody(gate: Gate) -> None:
    page = gate.http.get("/openapi.json")
    assert (page.status, page.headers["content-type"], page.json["openapi"]) == (200, "application/json", "3.1.0")
    keys = gate.http.get("/.well-known/jwks.json")
    assert {one["alg"] for one in json.loads(keys.body)["keys"]} == {"ES256"}
    assert gate.http.get("/healthz").status == 200
    assert gate.http.get("/v1/checkpoint").json["note"].startswith("facetmesh.local/audit\n")
