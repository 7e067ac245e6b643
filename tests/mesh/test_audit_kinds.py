"""Every kind of use is in the log: who signed in or was refused, what was done, and who read of it."""

from __future__ import annotations

import contextlib
import secrets
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from tests.unit import onnx_models

from facetmesh.client import PermissionDenied, Unauthenticated

from .rig import consented, patiently, until
from .test_models import picture

if TYPE_CHECKING:
    from facetmesh.client import Client

    from .conftest import Mesh

KINDS = {
    "authentications": {"IssueToken OK", "IssueToken REFUSED"},
    "refusals": {"CreateKey REFUSED", "GetTenant REFUSED"},
    "inferences": {"Detect OK"},
    "fusions": {"CreateFusion OK", "fuse OK"},
    "consents": {"CreateConsent OK", "RevokeConsent OK"},
    "models": {"CreateModel OK", "UploadModel OK", "DeleteModel OK"},
    "rollouts": {"CreateRollout OK", "rollout-decision OK", "AbortRollout OK"},
    "policies": {"CreatePolicy OK", "ActivatePolicy OK"},
    "keys": {"CreateKey OK", "RotateKey OK", "RevokeKey OK"},
    "deletions": {"DeleteFusion OK", "DeleteTenant OK"},
    "audit reads": {"ListEvents OK", "GetReceipt OK", "ExportEvents OK", "UpdateRetention OK"},
}

OUTCOMES = {1: "OK", 2: "REFUSED", 3: "FAILED"}


@pytest.mark.full
def test_every_kind_of_use_is_an_event(mesh: Mesh, group: bytes, astronaut: bytes) -> None:
    tenant = f"census-{secrets.token_hex(4)}"  # deleted at the end, so that another try needs another name
    since = datetime.now(UTC).isoformat()
    with mesh.client(mesh.tenant(tenant)) as client:
        work_with_models(client)
        consent = consented(client, astronaut)
        made = client.fuse(astronaut, group, face_model="faces", consent=consent)
        client.receipt(made.fusion.receipt)
        client.delete_fusion(made.fusion.name)
        client.revoke_consent(consent)
        client.delete_model("faces")
        policy = client.create_policy('@id("all") permit (principal, action, resource);')
        client.activate_policy(policy.name)
        list(client.export_events(filter="kind = Detect"))
        work_with_keys(mesh, client)
    seen: set[str] = set()
    wanted = set().union(*KINDS.values())
    with mesh.client(mesh.admin_key) as admin:
        admin.update_retention(tenant, days=30)
        admin.delete_tenant(tenant)
        of_whom = f'time >= "{since}" AND (tenant = "tenants/{tenant}" OR tenant = "")'  # nobody known is nobody's

        def all_seen() -> bool:
            for one in admin.list_events(tenant="-", filter=of_whom, limit=10_000):
                seen.add(f"{one.event.method.rpartition('/')[2]} {OUTCOMES[one.event.outcome]}")
            return seen >= wanted

        with contextlib.suppress(pytest.fail.Exception):  # what is missing says more
            until(all_seen, "all kinds are in the log")
    assert {what: kinds - seen for what, kinds in KINDS.items() if kinds - seen} == {}


def work_with_models(client: Client) -> None:
    """Uploads, uses and rolls out versions of a model."""
    for x in (32, 33):
        client.upload_model("pets", onnx_models.detector((x, 32, 20, 10, 0, 0.9)), licence="MIT")
    client.detect("pets", picture())
    rollout = client.start_rollout("pets", to="2", steps=[(0, 100), (100, 0)], window_s=600)
    patiently(lambda: client.abort_rollout("pets", rollout.name.rpartition("/")[2]))


def work_with_keys(mesh: Mesh, client: Client) -> None:
    """Makes a key that may not do all, changes it, and uses it when it is revoked."""
    key = client.create_key(display_name="only calls")
    with mesh.client(key.secret) as caller:
        for refused in (caller.create_key, lambda: caller.get_tenant("acme")):
            with pytest.raises(PermissionDenied):
                refused()
    client.rotate_key(key.name)
    client.revoke_key(key.name)
    with mesh.client(key.secret) as revoked, pytest.raises(Unauthenticated):
        revoked.list_models()
