"""A deleted tenant's data on a real mesh, whose auth is killed in between."""

from __future__ import annotations

import os
import signal
import sqlite3
from typing import TYPE_CHECKING

import pytest

from facetmesh.client import (
    ROLE_AUDITOR,
    ROLE_CALLER,
    ROLE_TENANT_ADMIN,
    AlreadyExists,
    FacetmeshError,
    Unauthenticated,
)

from .conftest import running
from .rig import consented, until

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Collector, Mesh


def wrapped_keys(mesh: Mesh, tenant_id: str) -> list[str]:
    """The services that hold data keys of a tenant."""
    with sqlite3.connect(f"file:{mesh.home / 'sidecar.db'}?mode=ro", uri=True) as db:
        rows = db.execute("SELECT key, value FROM state WHERE key LIKE ?", (f"%||data-keys/{tenant_id}",)).fetchall()
    return [key.split("||")[0] for key, value in rows if b"wrapped" in bytes(value)]


@pytest.mark.full
def test_a_purge_survives_the_death_of_auth(
    tmp_path: Path, collector: Collector, assets: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACETMESH_TENANT_GRACE_DAYS", "0")
    monkeypatch.setenv("FACETMESH_PURGE_SWEEP_S", "1")
    photo = assets["photo-six-faces"].read_bytes()
    with running(tmp_path / "home", collector) as mesh:
        with mesh.client(mesh.admin_key) as admin:
            admin.create_tenant("acme", licence_classes=["permissive", "copyleft"])
            roles = [ROLE_TENANT_ADMIN, ROLE_CALLER, ROLE_AUDITOR]
            key = admin.create_key(tenant="acme", roles=roles).secret
        with mesh.client(key) as client:
            client.create_model("faces", catalog_id="nudenet-320n", accept_licence="AGPL-3.0")
            receipt = client.detect("faces", photo).receipt
            assert client.receipt(receipt, wait_s=30)
            client.fuse(photo, photo, face_model="faces", consent=consented(client, photo))
        until(lambda: {"audit", "fusion"} <= set(wrapped_keys(mesh, "acme")), "there is something to destroy")
        with mesh.client(mesh.admin_key) as admin:
            admin.delete_tenant("acme")
            os.kill(mesh.pid("auth"), signal.SIGKILL)

            def purged() -> bool:
                try:
                    return admin.get_tenant("acme").HasField("purge_time")
                except FacetmeshError:
                    return False

            until(purged, "the tenant is purged", deadline_s=120)
            assert wrapped_keys(mesh, "acme") == []
            assert [path for path in (mesh.home / "blobs/acme").rglob("*") if path.is_file()] == []
            with pytest.raises(AlreadyExists):
                admin.create_tenant("acme")
        with mesh.client(key) as client, pytest.raises(Unauthenticated):
            client.token()
