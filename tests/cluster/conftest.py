"""The control plane that the tests of manifests, canaries and rollouts share."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from .controlplane import control_plane

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .controlplane import ControlPlane

ROOT = Path(__file__).resolve().parents[2]
_BUILD_S = 3600


@pytest.fixture(scope="session")
def parts() -> Any:
    """The control plane's programs and resource definitions, built and fetched if they are not here."""
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "cluster.py"], stdout=subprocess.PIPE, text=True, check=True,
        timeout=_BUILD_S,
    )
    return json.loads(done.stdout)


@pytest.fixture(scope="session")
def cluster(parts: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """An API server that knows the resources of Istio, Dapr, KEDA and the Prometheus operator."""
    with control_plane(tmp_path_factory.mktemp("cluster"), parts["programs"]) as cluster:
        for definitions in parts["definitions"]:
            cluster.kubectl("apply", "--server-side", f"--filename={definitions}")
        cluster.kubectl("wait", "--for=condition=Established", "customresourcedefinitions", "--all", "--timeout=60s")
        for namespace in ("istio-ingress", "istio-system"):
            cluster.kubectl("create", "namespace", namespace)
        yield cluster
