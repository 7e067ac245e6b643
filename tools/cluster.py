"""Sees to it that there is a Kubernetes and Istio control plane for the tests, and prints as JSON where it is.

Run by `make cluster`. etcd, kube-apiserver and kubectl, istiod (pilot-discovery) and
istioctl, Dapr's sentry and injector, and Prometheus are built from their Go modules, as
those in the folders beside this file pin them; where the resource definitions are,
definitions.py tells.

    {"programs": {name: path}, "definitions": [file or folder, …]}
"""

from __future__ import annotations

import json

from daprd import DAPR
from definitions import folders
from golang import Module
from promtool import PROMETHEUS

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


def main() -> None:
    """Prints where everything is."""
    wanted = [(module, name) for module in (KUBERNETES, ISTIO) for name in module.programs]
    wanted += [(DAPR, "sentry"), (DAPR, "injector"), (PROMETHEUS, "prometheus")]
    programs = {name: str(module.ensure(name)) for module, name in wanted}
    print(json.dumps({"programs": programs, "definitions": folders()}, indent=2))  # noqa: T201 - the answer


if __name__ == "__main__":
    main()
