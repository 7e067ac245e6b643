"""What is in k8s/, before the real API server and Istio's own analysis."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

if TYPE_CHECKING:
    from .controlplane import ControlPlane

pytestmark = pytest.mark.full

K8S = Path(__file__).resolve().parents[2] / "k8s"
OVERLAYS = sorted(folder.name for folder in (K8S / "overlays").iterdir())


def test_there_are_overlays() -> None:
    assert {"dev", "rehearsal", "production", "gpu", "mig", "spot", "eu", "ap"} <= set(OVERLAYS)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_api_server_takes_it(cluster: ControlPlane, overlay: str) -> None:
    said = cluster.kubectl(
        "apply", "--server-side", "--force-conflicts", f"--kustomize={K8S / 'overlays' / overlay}"
    )
    assert said.stdout.count("serverside-applied") > 40
    # Warnings tell of what is deprecated, or of pods that would break the namespace's rules.
    assert "Warning" not in said.stderr


def test_a_wrong_field_would_be_refused(cluster: ControlPlane) -> None:
    rendered = cluster.kubectl("kustomize", str(K8S / "overlays" / "dev")).stdout
    broken = rendered.replace("consecutiveGatewayErrors", "consecutiveGatewayError")
    assert broken != rendered
    said = cluster.kubectl("apply", "--server-side", "--filename=-", stdin=broken, check=False)
    assert said.returncode != 0
    assert "consecutiveGatewayError" in said.stderr


def test_autoscalers_ask_the_prometheus_that_rollouts_ask(cluster: ControlPlane) -> None:
    rendered = list(yaml.safe_load_all(cluster.kubectl("kustomize", str(K8S / "overlays" / "spot")).stdout))
    rollout, scaled = (
        next(one["spec"] for one in rendered if (one["kind"], one["metadata"]["name"]) == wanted)
        for wanted in (("Deployment", "rollout"), ("ScaledObject", "detection-v1"))
    )
    (service,) = rollout["template"]["spec"]["containers"]
    url = next(one["value"] for one in service["env"] if one["name"] == "FACETMESH_PROMETHEUS_URL")
    triggers = [one["metadata"] for one in scaled["triggers"] if one["type"] == "prometheus"]
    assert triggers
    assert {one["serverAddress"] for one in triggers} == {url}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_istio_finds_nothing_to_say(cluster: ControlPlane, parts: Any, tmp_path: Path, overlay: str) -> None:
    rendered = tmp_path / "rendered.yaml"
    rendered.write_text(cluster.kubectl("kustomize", str(K8S / "overlays" / overlay)).stdout)
    gateway = tmp_path / "ingress.yaml"
    # What Istio's own chart installs: the pods that our Gateway selects.
    gateway.write_text(yaml.safe_dump_all([
        {"apiVersion": "v1", "kind": "Namespace",
         "metadata": {"name": "istio-ingress", "labels": {"istio-injection": "enabled"}}},
        {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
         "metadata": {"name": "facetmesh-tls", "namespace": "istio-ingress"}},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "istio-ingress", "namespace": "istio-ingress"},
         "spec": {"selector": {"istio": "ingressgateway"}, "ports": [{"name": "https", "port": 443}]}},
        {"apiVersion": "v1", "kind": "Pod",
         "metadata": {"name": "gateway", "namespace": "istio-ingress",
                      "labels": {"istio": "ingressgateway", "sidecar.istio.io/inject": "false"}},
         "spec": {"containers": [{"name": "istio-proxy", "image": "proxy"}]}},
    ]))  # fmt: skip
    done = subprocess.run(
        [parts["programs"]["istioctl"], "analyze", "--use-kube=false", "--failure-threshold=Info", "--all-namespaces",
         rendered, gateway],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
