"""A tenant's namespace holds its pods to what it may have, under the real controllers of quotas and accounts."""

from __future__ import annotations

import secrets
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from .nodes import GPU

if TYPE_CHECKING:
    from pathlib import Path

    from .fleet import Fleet

pytestmark = pytest.mark.full


def test_the_one_too_many_is_refused_until_another_goes(fleet: Fleet, tmp_path: Path) -> None:
    cluster = fleet.cluster
    tenant = f"fleet-{secrets.token_hex(3)}"
    namespace = f"facetmesh-tenant-{tenant}"
    subprocess.run(
        [sys.executable, "-m", "facetmesh.cli", "tenants", "render-namespace", tenant, "--gpus=2",
         f"--out={tmp_path / tenant}"],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    cluster.kubectl("apply", "--server-side", f"--kustomize={tmp_path / tenant}")

    def used() -> str:
        return str(cluster.get("resourcequota", "tenant", f"--namespace={namespace}")["status"].get("used", {}).get(
            f"requests.{GPU}", ""
        ))  # fmt: skip

    def condition() -> str:
        listed = cluster.get("deployment", "wanted", f"--namespace={namespace}")["status"].get("conditions", [])
        return next((one["message"] for one in listed if one["type"] == "ReplicaFailure"), "")

    fleet.until(lambda: used() == "0", "the quota is counted")
    cluster.apply(_deployment(namespace, 3))
    fleet.until(lambda: "exceeded quota: tenant" in condition(), "the third pod is refused")
    assert f"requests.{GPU}=1" in condition()
    fleet.until(lambda: used() == "2", "two are there")
    assert len(cluster.get("pods", f"--namespace={namespace}")["items"]) == 2
    # One too many is no longer wanted: then its place is another's.
    cluster.kubectl("scale", "deployment/wanted", "--replicas=1", f"--namespace={namespace}")
    fleet.until(lambda: used() == "1" and not condition(), "one has gone")
    cluster.kubectl("scale", "deployment/wanted", "--replicas=2", f"--namespace={namespace}")
    fleet.until(lambda: used() == "2", "another took its place")
    cluster.kubectl("delete", "deployment", "wanted", f"--namespace={namespace}")
    fleet.until(lambda: used() == "0", "all have gone")


def _deployment(namespace: str, replicas: int) -> dict[str, Any]:
    labels = {"app": "wanted"}
    return {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "wanted", "namespace": namespace},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "tolerations": [{"key": GPU, "operator": "Exists"}],
                    "securityContext": {
                        "runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "containers": [{
                        "name": "one", "image": "client", "resources": {"limits": {GPU: "1"}},
                        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                    }],
                },
            },
        },
    }  # fmt: skip
