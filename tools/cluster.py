"""Sees to it that there is a Kubernetes and Istio control plane for the tests, and prints as JSON where it is.

Run by `make cluster`. etcd, kube-apiserver and kubectl, istiod (pilot-discovery) and
istioctl are built from their Go modules, as those in tools/kubernetes and tools/istio
pin them; the resource definitions come out of the modules that publish them.

    {"programs": {name: path}, "definitions": [file or folder, …]}
"""

from __future__ import annotations

import json

from golang import Module, fetch

KUBERNETES = Module(
    "kubernetes",
    pins="k8s.io/kubernetes",
    programs={
        "etcd": "go.etcd.io/etcd/server/v3",
        "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
        "kubectl": "k8s.io/kubernetes/cmd/kubectl",
    },
    # kubectl cannot parse a server's version that has none.
    stamps=("k8s.io/component-base/version.gitVersion=v{version}",),
)
ISTIO = Module(
    "istio",
    pins="istio.io/istio",
    programs={
        "pilot-discovery": "istio.io/istio/pilot/cmd/pilot-discovery",
        "istioctl": "istio.io/istio/istioctl/cmd/istioctl",
    },
)
DEFINITIONS = {
    ("istio.io/istio@v0.0.0-20260827124520-eed52ebb66ad", "h1:ui9TJjRMAV/hb5ehQaZDq7IUGxuQP6dra9lapT/VjHI="):
        "manifests/charts/base/files/crd-all.gen.yaml",
    ("github.com/dapr/dapr@v1.18.1", "h1:Ra9AE9ekBva6Dqc5nz71aA+I8DEdjllFqyn+Z/mBSow="): "charts/dapr/crds",
    ("github.com/kedacore/keda/v2@v2.21.0", "h1:R6z2HZvstK4RLUMxroNACzBj74xGxt3kG59b5Xc+Xps="): "config/crd/bases",
    ("github.com/prometheus-operator/prometheus-operator@v0.85.0", "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s="):
        "example/prometheus-operator-crd",
}  # fmt: skip
"""Where a module's resource definitions lie, by the module and its checksum."""


def main() -> None:
    """Prints where everything is."""
    programs = {name: str(module.ensure(name)) for module in (KUBERNETES, ISTIO) for name in module.programs}
    definitions = [str(fetch(*module) / path) for module, path in DEFINITIONS.items()]
    print(json.dumps({"programs": programs, "definitions": definitions}, indent=2))  # noqa: T201 - the answer


if __name__ == "__main__":
    main()
