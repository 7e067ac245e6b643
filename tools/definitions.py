"""Prints where the definitions are of the resources that our manifests use, as a JSON list of files and folders.

They come out of the Go modules that publish them, fetched if they are not here.
"""

from __future__ import annotations

import json

from golang import fetch

DEFINITIONS = {
    ("istio.io/istio@v0.0.0-20260827124520-eed52ebb66ad", "h1:ui9TJjRMAV/hb5ehQaZDq7IUGxuQP6dra9lapT/VjHI="):
        "manifests/charts/base/files/crd-all.gen.yaml",
    ("github.com/dapr/dapr@v1.18.1", "h1:Ra9AE9ekBva6Dqc5nz71aA+I8DEdjllFqyn+Z/mBSow="): "charts/dapr/crds",
    ("github.com/kedacore/keda/v2@v2.21.0", "h1:R6z2HZvstK4RLUMxroNACzBj74xGxt3kG59b5Xc+Xps="): "config/crd/bases",
    ("github.com/prometheus-operator/prometheus-operator@v0.85.0", "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s="):
        "example/prometheus-operator-crd",
}  # fmt: skip
"""Where a module's resource definitions lie, by the module and its checksum."""


def folders() -> list[str]:
    """The files and folders."""
    return [str(fetch(*module) / path) for module, path in DEFINITIONS.items()]


if __name__ == "__main__":
    print(json.dumps(folders()))  # noqa: T201 - the answer
