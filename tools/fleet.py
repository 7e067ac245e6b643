"""Sees to it that there is what the fleet's rehearsal runs beside the control plane, and prints as JSON where it is.

Run by `make fleet`. Kubernetes' own scheduler and controllers, kwok (nodes and pods that exist in the API server
alone) and, with --keda, KEDA, which takes far longer, and Prometheus are built from their Go modules, as those in
tools/kubernetes, tools/kwok, tools/keda and tools/prometheus pin them. What a node and a pod of kwok go through is
described by its stages, which lie in its module.

    {"programs": {name: path}, "definitions": [file or folder, …], "stages": [file, …]}
"""

from __future__ import annotations

import json
import sys

from cluster import KUBERNETES
from definitions import folders
from golang import Module, fetch
from promtool import PROMETHEUS

CONTROLLERS = Module(
    "kubernetes",
    pins="k8s.io/kubernetes",
    programs={
        "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
        "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
    },
    stamps=KUBERNETES.stamps,
)
KWOK = Module("kwok", pins="sigs.k8s.io/kwok", programs={"kwok": "sigs.k8s.io/kwok/cmd/kwok"})
KEDA = Module(
    "keda",
    pins="github.com/kedacore/keda/v2",
    programs={
        "keda-operator": "github.com/kedacore/keda/v2/cmd/operator",
        "keda-adapter": "github.com/kedacore/keda/v2/cmd/adapter",
    },
)
_KWOK_FILES = ("sigs.k8s.io/kwok@v0.8.0", "h1:OTIOTwgROqPMovcTwxICx2eYQ4AwLpSx5EpjbDKF4SQ=")
_STAGES = (
    "node/fast/node-initialize.yaml", "node/heartbeat-with-lease/node-heartbeat-with-lease.yaml",
    "pod/fast/pod-ready.yaml", "pod/fast/pod-complete.yaml", "pod/fast/pod-delete.yaml",
)  # fmt: skip


def main() -> None:
    """Prints where everything is."""
    modules = (KUBERNETES, CONTROLLERS, KWOK, *([KEDA, PROMETHEUS] if "--keda" in sys.argv[1:] else []))
    programs = {name: str(module.ensure(name)) for module in modules for name in module.programs}
    stages = fetch(*_KWOK_FILES) / "kustomize" / "stage"
    found = {
        "programs": programs, "definitions": folders(), "stages": [str(stages / name) for name in _STAGES],
    }  # fmt: skip
    print(json.dumps(found, indent=2))  # noqa: T201 - the answer


if __name__ == "__main__":
    main()
