"""A new customer is served after one command."""

from __future__ import annotations

import json
import stat
from secrets import token_hex
from typing import TYPE_CHECKING

from facetmesh.cli.mesh.home import Home

from .conftest import FACES
from .rig import Cli

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Mesh


def test_one_command_and_a_tenant_is_served(mesh: Mesh, tmp_path: Path, group: bytes) -> None:
    cli, key, tenant = Cli(Home(mesh.home)), tmp_path / "umbrella.key", f"umbrella-{token_hex(4)}"
    done = cli(
        "tenants", "onboard", tenant, "--plan=premium", "--set=limits.models=3", "--model=nudenet-320n",
        "--accept-licence=AGPL-3.0", f"--out={key}",
    )
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert (made["tenant"]["plan"], made["tenant"]["limits"]) == ("plans/premium", {"models": 3})
    assert "secret" not in made["key"]
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    with mesh.client(key.read_text().strip()) as client:
        found = client.detect("nudenet-320n", group, labels=FACES)
    assert len(found.detections) == 6
    changed = cli.ok("tenants", "update", tenant, "--set=limits.concurrency=9", "--set=audit_policy=best-effort")
    assert changed["limits"] == {"concurrency": 9, "models": 3}
    assert changed["audit_policy"] == "AUDIT_POLICY_BEST_EFFORT"


def test_one_token_is_revoked_by_its_name(mesh: Mesh) -> None:
    cli = Cli(Home(mesh.home))
    tenant = f"raviga-{token_hex(4)}"
    made = cli.ok("tenants", "onboard", tenant)
    with mesh.client(made["key"]["secret"]) as client:
        token = client.token()
        assert token.name.startswith(f"tenants/{tenant}/tokens/")
        cli.ok("keys", "revoke-token", token.name)
        assert client.get_tenant(tenant).name == f"tenants/{tenant}"  # the client exchanges its key again


def test_keys_that_wrap_keys_are_rotated_while_they_serve(mesh: Mesh, group: bytes) -> None:
    cli = Cli(Home(mesh.home))
    key = mesh.tenant("rotating")
    with mesh.client(key) as client:
        receipt = client.detect("faces", group).receipt
        assert client.receipt(receipt, wait_s=30)
        cli.ok("keys", "rotate-encryption")
        cli.ok("tenants", "rotate-key", "rotating")
        assert client.receipt(receipt, wait_s=30)
        later = client.detect("faces", group).receipt
        assert client.receipt(later, wait_s=30)
