"""A cluster of nodes that do not exist, under Kubernetes' own scheduler and controllers."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.unit.certificates import Authority

from .nodes import nodes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.cluster.controlplane import ControlPlane

LONG = os.environ.get("FACETMESH_FLEET") == "long"
"""Whether it is `make test-fleet`: four hundred nodes, what takes its time, and KEDA."""
PACE = int(os.environ.get("FACETMESH_PACE", "20"))
"""How many times faster than in production time goes for who scales. 1 leaves our ScaledObject as it is."""
NODES = 400 if LONG else 60
NAMESPACE = "facetmesh"
DEADLINE_S = 300
"""Pods come at 20 a second at best, and this machine has other work."""
K8S = Path(__file__).resolve().parents[2] / "k8s"
_HPA_SYNC_S = max(1, 15 // PACE)


@dataclass(frozen=True, slots=True)
class Fleet:
    """The cluster.

    Args:
        cluster: Its API server, which the scheduler, the controllers and kwok work on.
    """

    cluster: ControlPlane

    def use(self, overlay: str) -> None:
        """Applies an overlay as it is, and waits until detection has followed it."""
        self.cluster.kubectl("apply", "--server-side", "--force-conflicts", f"--kustomize={K8S / 'overlays' / overlay}")
        for subset in ("detection-v1", "detection-v2"):
            self.until(lambda subset=subset: self._has_followed(subset), f"{subset} has followed {overlay}")

    def scale(self, deployment: str, replicas: int) -> None:
        """Says how many pods a Deployment is to have."""
        self.cluster.kubectl("scale", f"deployment/{deployment}", f"--replicas={replicas}", f"--namespace={NAMESPACE}")

    def deployment(self, name: str) -> Any:
        """A Deployment as it is."""
        return self._raw(f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{name}")

    def pods(self, **labels: str) -> list[Any]:
        """Our pods that have these labels and are not about to go."""
        wanted = ",".join(f"{key}%3D{value}" for key, value in labels.items())
        found = self._raw(f"/api/v1/namespaces/{NAMESPACE}/pods?labelSelector={wanted}")["items"]
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def nodes(self) -> dict[str, Any]:
        """All nodes, by name."""
        return {node["metadata"]["name"]: node for node in self._raw("/api/v1/nodes")["items"]}

    def register(self, manifests: Sequence[Any]) -> None:
        """Registers nodes, and waits until they are ready."""
        fresh = [_as_new(one) for one in manifests]
        # What a node has is in its status, which apply would not set.
        listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": fresh})
        self.cluster.kubectl("create", "--filename=-", stdin=listed)
        names = [one["metadata"]["name"] for one in manifests]
        self.until(lambda: all(map(is_ready, map(self.nodes().get, names))), "the nodes are ready")

    def until(self, condition: Callable[[], Any], what: str) -> None:
        """Waits for a condition."""
        self.cluster.until(condition, what, DEADLINE_S)

    def _has_followed(self, name: str) -> bool:
        found = self.deployment(name)
        status = found["status"]
        wanted = found["spec"]["replicas"]
        return (
            status.get("observedGeneration") == found["metadata"]["generation"]
            and [status.get(count, 0) for count in ("replicas", "updatedReplicas", "availableReplicas")] == [wanted] * 3
        )

    def _raw(self, path: str) -> Any:
        return json.loads(self.cluster.kubectl("get", f"--raw={path}").stdout)


def start(cluster: ControlPlane, stages: Sequence[str]) -> Fleet:
    """Starts the scheduler, the controllers and kwok, and registers nodes and what our manifests presuppose."""
    common = (f"--kubeconfig={cluster.kubeconfig}", "--leader-elect=false", "--secure-port=0")
    cluster.run(
        "kube-controller-manager", *common,
        f"--service-account-private-key-file={cluster.folder / 'service-accounts.pem'}",
        f"--root-ca-file={cluster.folder / 'certs' / 'apiserver.crt'}",
        f"--horizontal-pod-autoscaler-sync-period={_HPA_SYNC_S}s",
        # A node that says nothing has no fault here: whoever speaks for all of them is short of CPU.
        "--node-monitor-grace-period=1h",
    )  # fmt: skip
    cluster.run("kube-scheduler", *common)
    cluster.run(
        "kwok", f"--kubeconfig={cluster.kubeconfig}", "--manage-all-nodes", "--node-lease-duration-seconds=1200",
        *(f"--config={stage}" for stage in stages),
    )  # fmt: skip
    fleet = Fleet(cluster)
    for namespace in ("istio-ingress", "istio-system"):
        cluster.kubectl("create", "namespace", namespace)
    cluster.apply(
        # What NVIDIA's operator brings, and a volume for the models.
        {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "nvidia"}, "handler": "nvidia"},
        {
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "models"},
            "spec": {
                "capacity": {"storage": "20Gi"}, "accessModes": ["ReadWriteMany"],
                "persistentVolumeReclaimPolicy": "Retain", "nfs": {"server": "files.stores", "path": "/models"},
            },
        },
    )  # fmt: skip
    fleet.register(list(nodes(NODES)))
    return fleet


def aggregation(folder: Path) -> tuple[str, ...]:
    """What an API server is told so that it passes on what others serve, such as KEDA's metrics."""
    authority = Authority()
    ca = folder / "front-proxy-ca.pem"
    ca.write_bytes(authority.pem)
    certificate, key = authority.leaf("front-proxy").write(folder, "front-proxy")
    return (
        f"--requestheader-client-ca-file={ca}", f"--proxy-client-cert-file={certificate}",
        f"--proxy-client-key-file={key}", "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group", "--requestheader-extra-headers-prefix=X-Remote-Extra-",
    )  # fmt: skip


def asks(pod: Any, resource: str) -> int:
    """How many of a resource a pod's service asks for."""
    return sum(int(one["resources"].get("limits", {}).get(resource, 0)) for one in pod["spec"]["containers"])


def placed(pods: Sequence[Any], resource: str) -> Counter[str]:
    """How many of a resource are asked for on each node."""
    counted: Counter[str] = Counter()
    for pod in pods:
        if node := pod["spec"].get("nodeName"):
            counted[node] += asks(pod, resource)
    return counted


def _as_new(node: Any) -> dict[str, Any]:
    """A node as it registers, whether it was there before or not."""
    metadata = {key: node["metadata"][key] for key in ("name", "labels")}
    taints = [one for one in node["spec"].get("taints", []) if not one["key"].startswith("node.kubernetes.io/")]
    status = {key: node["status"][key] for key in ("capacity", "allocatable")}
    return {
        "apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": {"taints": taints}, "status": status,
    }  # fmt: skip


def is_ready(thing: Any) -> bool:
    """Whether a node or a pod says that it is."""
    conditions = (thing or {}).get("status", {}).get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
