"""A tenant's namespace, on the real API server."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from .controlplane import ControlPlane

pytestmark = pytest.mark.full
NAMESPACE = "facetmesh-tenant-acme"
SAFE = {
    "runAsNonRoot": True, "runAsUser": 10001, "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}  # fmt: skip


def rendered(folder: Path, *arguments: str) -> None:
    """Renders it into a folder, as a user does."""
    command = [sys.executable, "-m", "facetmesh.cli", "tenants", "render-namespace", "acme", f"--out={folder}"]
    subprocess.run([*command, *arguments], check=True, capture_output=True, timeout=120)


def pod(name: str, security: Any, **limits: str) -> str:
    container = {"name": "one", "image": "client", "securityContext": security, "resources": {"limits": limits}}
    return json.dumps({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"containers": [container]},
    })  # fmt: skip


def test_the_api_server_takes_it_and_holds_pods_to_it(cluster: ControlPlane, tmp_path: Path) -> None:
    rendered(tmp_path / "acme", "--memory=8Gi", "--gpus=1")
    said = cluster.kubectl("apply", "--server-side", f"--kustomize={tmp_path / 'acme'}")
    assert said.stdout.count("serverside-applied") == 4
    assert "Warning" not in said.stderr
    # No controller of quotas runs here: what it would count is counted by hand.
    hard = cluster.get("resourcequota", "tenant", f"--namespace={NAMESPACE}")["spec"]["hard"]
    assert hard["requests.memory"] == "8Gi"
    status = {"status": {"hard": hard, "used": dict.fromkeys(hard, "0")}}
    cluster.kubectl(
        "patch", "resourcequota", "tenant", f"--namespace={NAMESPACE}", "--subresource=status", "--type=merge",
        f"--patch={json.dumps(status)}",
    )
    cluster.kubectl("create", "--filename=-", stdin=pod("modest", SAFE))
    made = cluster.get("pod", "modest", f"--namespace={NAMESPACE}")
    assert made["spec"]["containers"][0]["resources"]["limits"]["memory"] == "512Mi"
    for name, asked, why in (
        ("root", pod("root", {}), "violates PodSecurity"),
        ("large", pod("large", SAFE, memory="9Gi"), "maximum memory usage per Container is 8Gi"),
        ("cards", pod("cards", SAFE, **{"nvidia.com/gpu": "2"}), "exceeded quota"),
    ):
        refused = cluster.kubectl("create", "--filename=-", stdin=asked, check=False)
        assert refused.returncode != 0, name
        assert why in refused.stderr, refused.stderr
    cluster.kubectl("create", "--filename=-", stdin=pod("card", SAFE, **{"nvidia.com/gpu": "1"}))
