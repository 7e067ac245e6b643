"""Repeated refusals are noticed on a real mesh, by a signed event and a metric, and do not flood the audit log."""

from __future__ import annotations

import base64
import json
import sqlite3
import time
from typing import TYPE_CHECKING, Any

import grpc
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from facetmesh.auth.v1 import auth_pb2, auth_pb2_grpc
from facetmesh.event.v1 import event_pb2
from facetmesh.kit import apikeys
from facetmesh.kit.refusals import RefusalLimits
from facetmesh.kit.signing import ALERT_CONTEXT

from .rig import until

if TYPE_CHECKING:
    from .conftest import Mesh

ATTEMPTS = 300
SINGLY_PER_S = RefusalLimits().source_rate
METHOD = "facetmesh.auth.v1.AuthService/IssueToken"


def alerts(mesh: Mesh) -> list[event_pb2.SignedAlert]:
    """What lies in the topic alerts, to which nobody of the mesh subscribes."""
    with sqlite3.connect(f"file:{mesh.home / 'sidecar.db'}?mode=ro", uri=True) as db:
        rows = db.execute("SELECT data FROM messages WHERE topic = 'alerts'").fetchall()
    envelopes: list[dict[str, Any]] = [json.loads(data) for (data,) in rows]
    return [event_pb2.SignedAlert.FromString(base64.b64decode(one["data_base64"])) for one in envelopes]


def test_who_guesses_keys_is_noticed_and_does_not_flood_the_log(mesh: Mesh) -> None:
    began = time.monotonic()
    with grpc.insecure_channel(mesh.endpoints.auth) as channel:
        stub = auth_pb2_grpc.AuthServiceStub(channel)
        for _ in range(ATTEMPTS):
            guess = apikeys.new_key("globex", "0" * 16)
            try:
                stub.IssueToken(auth_pb2.IssueTokenRequest(key=guess), timeout=30)
            except grpc.RpcError as error:
                assert error.code() is grpc.StatusCode.UNAUTHENTICATED  # noqa: PT017 - nobody is let in

    took_s = time.monotonic() - began

    def raised() -> list[event_pb2.Alert]:
        found = [event_pb2.Alert.FromString(signed.alert) for signed in alerts(mesh)]
        return [one for one in found if (one.service, one.rule) == ("auth", "refusals-from-source")]

    (alert, *_) = until(raised, "an alert is raised")
    assert (alert.subject, alert.count, alert.window.seconds) == ("127.0.0.1", 100, 60)
    public = json.loads((mesh.home / "service-keys.json").read_text())["auth"]
    for signed in alerts(mesh):
        if signed.key_id.startswith("auth/"):
            key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public))
            key.verify(signed.signature, ALERT_CONTEXT + signed.alert)

    with mesh.client(mesh.admin_key) as admin:

        def recorded() -> list[event_pb2.AuditEvent]:
            logged = [one.event for one in admin.list_events(tenant="-", limit=1000)]
            refused = [one for one in logged if (one.method, one.reason) == (METHOD, "KEY_INVALID")]
            return refused if sum(max(1, one.count) for one in refused) >= ATTEMPTS else []

        refused = until(recorded, "all are accounted for")
    if ATTEMPTS / took_s > 3 * SINGLY_PER_S:  # else this machine is too slow for a flood
        assert len(refused) < ATTEMPTS, "those alike stand in one event"
        assert max(one.count for one in refused) > 1
