"""The main job through the public API only, as any client would do it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from facetmesh.client import NotFound, PermissionDenied, Unauthenticated
from facetmesh.verify import VerificationError, matches_input, open_checkpoint, verify_growth, verify_receipt

from .conftest import FACES, Mesh
from .rig import consented, until

if TYPE_CHECKING:
    from facetmesh.audit.v1 import audit_pb2
    from facetmesh.event.v1 import event_pb2

SERVICES = {
    "auth": "facetmesh.auth.v1.AuthService", "detection": "facetmesh.detection.v1.DetectionService",
    "fusion": "facetmesh.fusion.v1.FusionService", "audit": "facetmesh.audit.v1.AuditService",
}  # fmt: skip


def log_key(mesh: Mesh) -> str:
    """What an auditor was given."""
    return (mesh.home / "log.vkey").read_text().strip()


def verified(mesh: Mesh, receipt: audit_pb2.Receipt) -> event_pb2.AuditEvent:
    """The event of a receipt, with the log's public key alone."""
    return verify_receipt(receipt, log_key(mesh))


def test_six_faces_are_found_and_the_receipt_proves_it(mesh: Mesh, group: bytes) -> None:
    with mesh.client(mesh.tenant("acme")) as client:
        answer = client.detect("faces", group, labels=FACES)
        receipt = client.receipt(answer.receipt, wait_s=30)
    assert len(answer.detections) == 6
    assert (answer.image_width, answer.image_height) == (1280, 886)
    for found in answer.detections:
        assert 0 <= found.box.x_min < found.box.x_max <= 1280
        assert 0 <= found.box.y_min < found.box.y_max <= 886
        assert found.confidence >= 0.25
    event = verified(mesh, receipt)
    assert event.method == "facetmesh.detection.v1.DetectionService/Detect"
    assert (event.tenant, event.resource) == ("tenants/acme", "tenants/acme/models/faces")
    assert event.model_version == answer.model_version
    assert len(event.model_sha256) == 64
    assert matches_input(event, group)
    assert not matches_input(event, group + b"\0")
    receipt.checkpoint = receipt.checkpoint.replace("\n", "\n1", 1)
    with pytest.raises(VerificationError):
        verified(mesh, receipt)


def test_a_face_is_fused_and_the_receipt_names_both_photos(mesh: Mesh, group: bytes, astronaut: bytes) -> None:
    stages: list[int] = []
    with mesh.client(mesh.tenant("acme")) as client:
        made = client.fuse(
            astronaut, group, face_model="faces", consent=consented(client, astronaut),
            progress=lambda m: stages.append(m.stage),
        )
        receipt = client.receipt(made.fusion.receipt, wait_s=30)
    assert hashlib.sha256(made.content).hexdigest() == made.fusion.sha256
    assert made.fusion.size_bytes == len(made.content)
    assert made.fusion.media_type in {"image/png", "image/jpeg"}
    assert stages == sorted(stages)
    event = verified(mesh, receipt)
    assert (event.tenant, event.service) == ("tenants/acme", "fusion")
    assert matches_input(event, group)
    assert matches_input(event, astronaut)


def test_a_tenant_is_refused_what_is_anothers(mesh: Mesh, group: bytes) -> None:
    with mesh.client(mesh.tenant("acme")) as acme:
        answer = acme.detect("faces", group)
        own = acme.receipt(answer.receipt, wait_s=30)
    with mesh.client(mesh.tenant("globex")) as globex:
        for call in (
            lambda: globex.detect("tenants/acme/models/faces", group),
            lambda: globex.receipt(answer.receipt),
            lambda: globex.list_keys(tenant="acme"),
            lambda: globex.list_events(tenant="acme"),
            lambda: globex.list_events(tenant="-"),
            lambda: globex.get_tenant("acme"),
            lambda: globex.create_key(tenant="acme"),
            lambda: globex.download_fusion("tenants/acme/fusions/x"),
            lambda: globex.get_operation("tenants/nobody/operations/x"),
        ):
            with pytest.raises(PermissionDenied) as refusal:
                call()
            assert refusal.value.reason == "TENANT_MISMATCH"
        # Under its own name there is no such receipt either.
        with pytest.raises(NotFound):
            globex.receipt(own.name.replace("acme", "globex"), wait_s=0)
        # Refusals reach the log in the background.
        until(lambda: any(e.event.reason == "TENANT_MISMATCH" for e in globex.list_events()), "it is in the log")
        assert {e.event.tenant for e in globex.list_events()} == {"tenants/globex"}


def test_a_callers_key_cannot_manage(mesh: Mesh) -> None:
    with mesh.client(mesh.tenant("acme")) as admin:
        key = admin.create_key(display_name="only calls")
    with mesh.client(key.secret) as caller:
        caller.list_models()
        with pytest.raises(PermissionDenied) as refusal:
            caller.create_key()
    assert refusal.value.reason == "ROLE_MISSING"
    with mesh.client(mesh.tenant("acme")) as admin:
        admin.revoke_key(key.name)
    with mesh.client(key.secret) as caller, pytest.raises(Unauthenticated):
        caller.list_models()


def test_the_log_grows_and_stays_consistent(mesh: Mesh, group: bytes) -> None:
    with mesh.client(mesh.tenant("acme")) as client:
        old = open_checkpoint(client.checkpoint().note, log_key(mesh))
        client.receipt(client.detect("faces", group).receipt, wait_s=30)
        new = open_checkpoint(client.checkpoint().note, log_key(mesh))
        proof = client.consistency_proof(old.size, new.size)
    assert new.size > old.size
    verify_growth(old, new, proof.hashes)
    with pytest.raises(VerificationError):
        verify_growth(old, new, [*proof.hashes[:-1], bytes(32)])


@pytest.mark.parametrize("service", SERVICES)
def test_health_and_reflection_need_no_token(mesh: Mesh, service: str) -> None:
    with grpc.insecure_channel(getattr(mesh.endpoints, service)) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("", SERVICES[service], "liveness"):
            answer = health.Check(health_pb2.HealthCheckRequest(service=name), timeout=60)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        watch = health.Watch(health_pb2.HealthCheckRequest(service=SERVICES[service]), timeout=60)
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        watch.cancel()
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        listed = stub.ServerReflectionInfo(
            iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=60
        )
        names = {one.name for one in next(listed).list_services_response.service}
    assert names >= {SERVICES[service], "grpc.health.v1.Health"}
