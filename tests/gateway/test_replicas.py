"""What the gateway does with a replica that errs."""

from __future__ import annotations

import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import grpc
from grpc_health.v1 import health, health_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families
from tests.mesh.rig import until

from facetmesh.detection.v1 import model_pb2, model_pb2_grpc

from .conftest import in_front_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from facetmesh.cli.mesh.gateway import Envoy

    from .conftest import Gate

class _Models(model_pb2_grpc.ModelServiceServicer):
    """A replica that does what a test needs of it, which a healthy one cannot be made to do."""

    def __init__(self, before: Callable[[grpc.ServicerContext], None]) -> None:
        self._before = before

    def ListModels(
        self, request: model_pb2.ListModelsRequest, context: grpc.ServicerContext
    ) -> model_pb2.ListModelsResponse:
        self._before(context)
        return model_pb2.ListModelsResponse(next_page_token=request.parent)


@contextmanager
def replica(before: Callable[[grpc.ServicerContext], None]) -> Iterator[int]:
    """A replica that says SERVING; its port."""
    server = grpc.server(ThreadPoolExecutor(4))
    model_pb2_grpc.add_ModelServiceServicer_to_server(_Models(before), server)
    health_pb2_grpc.add_HealthServicer_to_server(health.HealthServicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait()


def list_models(envoy: Envoy, token: str) -> str:
    """Lists models on a connection of its own; "OK" or the status."""
    with grpc.insecure_channel(
        f"127.0.0.1:{envoy.sites.gateway}", [("grpc.use_local_subchannel_pool", 1)]
    ) as channel:
        stub = model_pb2_grpc.ModelServiceStub(channel)
        try:
            stub.ListModels(
                model_pb2.ListModelsRequest(parent="tenants/acme"), metadata=[("authorization", f"Bearer {token}")],
                timeout=60,
            )  # fmt: skip
        except grpc.RpcError as error:
            return str(error.code().name)
    return "OK"


def figure(envoy: Envoy, name: str) -> float:
    """One of the gateway's figures of detection."""
    with urllib.request.urlopen(f"http://127.0.0.1:{envoy.sites.admin}/stats/prometheus", timeout=60) as answer:
        text = answer.read().decode()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name and sample.labels.get("envoy_cluster_name") == "detection":
                return float(sample.value)
    return -1


def test_a_replica_that_only_errs_is_ejected(gate: Gate, tmp_path: Path) -> None:
    token = gate.token()
    erred = threading.Semaphore(0)

    def err(context: grpc.ServicerContext) -> None:
        erred.release()
        context.abort(grpc.StatusCode.UNAVAILABLE, "broken")

    with replica(lambda _: None) as good, replica(err) as bad, in_front_of(gate, tmp_path, good, bad) as envoy:
        until(lambda: figure(envoy, "envoy_cluster_membership_healthy") == 2, "both are healthy")
        ejections = "envoy_cluster_outlier_detection_ejections_active"
        until(lambda: list_models(envoy, token) and figure(envoy, ejections) == 1, "the bad one is ejected")
        assert erred.acquire(timeout=60)
        assert [list_models(envoy, token) for _ in range(20)] == ["OK"] * 20
