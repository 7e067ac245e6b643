"""What dashboards and autoscalers ask for is there, once Prometheus has scraped real services, and rules go by it."""

from __future__ import annotations

import contextlib
import json
import math
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING

import pytest
from tests.cluster import prometheus as prometheuses
from tests.cluster.controlplane import ControlPlane
from tests.unit import onnx_models
from tests.unit.test_k8s_queries import as_asked, autoscalers, dashboards

from facetmesh.client import Client, ResourceExhausted
from facetmesh.detection.v1 import model_pb2

from .replica import second_detection
from .rig import AWAY, consented, until
from .test_models import CAT, DOG, picture
from .test_telemetry import SERVICES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .conftest import Mesh

pytestmark = pytest.mark.full

_TOOL = Path(__file__).resolve().parents[2] / "tools" / "promtool.py"
_BUILD_S = 3600
QUIET = {
    # There is no GPU.
    "services: GPU: busy", "services: GPU: memory",
    # Nothing has gone wrong.
    "audit: Dead letters", "audit: Alerts raised", "audit: Events that the log refused",
    "tenants: Models in quarantine",
}  # fmt: skip
"""What need not say anything."""


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[prometheuses.Prometheus]:
    """A Prometheus with our rules, and nothing to scrape yet."""
    done = subprocess.run(
        [sys.executable, _TOOL, "prometheus"], stdout=subprocess.PIPE, text=True, check=True, timeout=_BUILD_S
    )
    place = ControlPlane(tmp_path, {"prometheus": done.stdout.strip()})
    try:
        yield prometheuses.start(place)
    finally:
        place.stop()


def test_every_panel_says_something_of_real_services(
    mesh: Mesh, prometheus: prometheuses.Prometheus, tmp_path: Path, group: bytes, astronaut: bytes
) -> None:
    tenant_id = f"shown-{token_hex(4)}"
    with (
        second_detection(
            mesh, tmp_path / "v2", FACETMESH_SERVES_ALIAS="canary", FACETMESH_ROLLOUTS="elsewhere",
            FACETMESH_BLOBS=str(mesh.home / "model-blobs"),
        ) as second,
        mesh.client(mesh.tenant(tenant_id)) as v1,
        Client(mesh.tenant(tenant_id), replace(mesh.endpoints, detection=second.address)) as v2,
    ):
        prometheus.scrape({
            f"127.0.0.1:{mesh.metrics_port(service)}": {"app": service, "pod": f"{service}-0"} | subset
            for service, subset in zip(SERVICES, ({}, {"subset": "v1"}, {}, {}), strict=True)
        } | {second.metrics: {"app": "detection", "pod": "detection-v2-0", "subset": "v2"}})
        for box in (CAT, DOG):
            v1.upload_model("shown", onnx_models.detector(box), licence="MIT")
        v1.set_aliases("shown", {"canary": "2"})
        v1.set_traffic("shown", model_pb2.Traffic(shadow_version="2", shadow_percent=100))
        assert v1.checkpoint()
        v1.fuse(astronaut, group, face_model="faces", consent=consented(v1, astronaut))
        with _called(v1, v2):
            silent = {
                where: as_asked(query).replace("$tenant", tenant_id).replace("$model", "shown")
                for where, query in (*dashboards(), *autoscalers()) if where not in QUIET
            }

            def all_speak() -> bool:
                for where, query in list(silent.items()):
                    if any(not math.isnan(value) for _, value in prometheus.query(query)):
                        del silent[where]
                return not silent

            until(all_speak, lambda: f"something is said by {json.dumps(silent, indent=1)}")
        until(lambda: all(rule["health"] == "ok" for rule in prometheus.rules()), lambda: str(prometheus.rules()))


@contextlib.contextmanager
def _called(*clients: Client) -> Iterator[None]:
    """Both subsets are called meanwhile."""
    enough = threading.Event()

    def call() -> None:
        while not enough.wait(0.1):
            for client in clients:
                with contextlib.suppress(ResourceExhausted, *AWAY):
                    client.detect("shown", picture())

    thread = threading.Thread(target=call)
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join()
