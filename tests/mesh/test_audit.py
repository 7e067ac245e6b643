"""The audit log of a real mesh: what anybody may ask of it, and what only some may."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from facetmesh.client import InvalidArgument, NotFound
from facetmesh.verify import open_checkpoint, verify_growth

from .rig import until

if TYPE_CHECKING:
    from facetmesh.verify import Checkpoint

    from .conftest import Mesh


def checkpoint(mesh: Mesh) -> Checkpoint:
    """The log's newest checkpoint, which needs no key."""
    with mesh.client() as anybody:
        return open_checkpoint(anybody.checkpoint().note, (mesh.home / "log.vkey").read_text())


def test_anybody_may_see_that_the_log_only_grows(mesh: Mesh) -> None:
    old = checkpoint(mesh)
    with mesh.client(mesh.tenant("acme")) as client:
        client.list_models()
        client.list_keys()
    new = until(lambda: found if (found := checkpoint(mesh)).size > old.size else None, "the log has grown")
    with mesh.client() as anybody:
        verify_growth(old, new, anybody.consistency_proof(old.size, new.size).hashes)
        for sizes in ((new.size, old.size), (1, new.size + 1_000_000)):
            with pytest.raises(InvalidArgument) as error:
                anybody.consistency_proof(*sizes)
            assert error.value.reason == "SIZE_OUT_OF_RANGE"


def test_the_platform_sees_all_and_a_tenant_its_own(mesh: Mesh) -> None:
    for tenant in ("acme", "globex"):
        with mesh.client(mesh.tenant(tenant)) as client:
            client.list_models()
    with mesh.client(mesh.admin_key) as admin:
        everything = admin.list_events(tenant="-", limit=10_000)
        indices = [one.index for one in everything]
        assert sorted(indices) == list(range(max(indices) + 1))
        assert {"tenants/acme", "tenants/globex", ""} <= {one.event.tenant for one in everything}
        announced = [one.event.resource.split("/")[1] for one in everything if one.event.service_public_key]
        assert announced[-1] == "audit"
        assert sorted(announced) == ["audit", "auth", "detection", "fusion"]
        assert {one.event.tenant for one in admin.list_events(tenant="acme")} == {"tenants/acme"}
    with mesh.client(mesh.tenant("acme")) as client:
        assert {one.event.tenant for one in client.list_events()} == {"tenants/acme"}


def test_reading_the_log_is_logged(mesh: Mesh) -> None:
    with mesh.client(mesh.tenant("acme")) as client:
        client.list_events(limit=1)
        newest = until(
            lambda: [one for one in client.list_events() if one.event.method.endswith("/ListEvents")], "it is logged"
        )
    assert newest[0].event.service == "audit"


def test_a_receipt_that_never_comes(mesh: Mesh) -> None:
    with mesh.client(mesh.tenant("acme")) as client, pytest.raises(NotFound) as error:
        client.receipt(f"tenants/acme/receipts/{'0' * 32}", wait_s=0.2)
    assert error.value.reason == "RECEIPT_NOT_FOUND"
