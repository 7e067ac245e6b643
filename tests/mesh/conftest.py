"""One real mesh for all tests of this folder: a sidecar, four services, and a collector of their traces."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from concurrent import futures
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
import psutil
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from facetmesh.client import ROLE_AUDITOR, ROLE_CALLER, ROLE_TENANT_ADMIN, AlreadyExists, Client, Endpoints
from facetmesh.kit import catalog

from .rig import DEADLINE_S, lines, none_left, until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

FACES = ("FACE_FEMALE", "FACE_MALE")


@dataclass(frozen=True)
class Span:
    """A span as it was exported."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    links: tuple[str, ...]


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """An OTLP collector that keeps what it gets."""

    def __init__(self) -> None:
        """Listens on a port of its own."""
        self._spans: list[Span] = []
        self._lock = threading.Lock()
        self._server = grpc.server(futures.ThreadPoolExecutor(2))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def Export(self, request: Any, context: Any) -> Any:
        """Keeps the spans."""
        with self._lock:
            for resource in request.resource_spans:
                names = {a.key: a.value.string_value for a in resource.resource.attributes}
                self._spans += [
                    Span(
                        names["service.name"], span.name, span.trace_id.hex(), span.span_id.hex(),
                        span.parent_span_id.hex(), tuple(link.trace_id.hex() for link in span.links),
                    )
                    for scope in resource.scope_spans for span in scope.spans
                ]  # fmt: skip
        return trace_service_pb2.ExportTraceServiceResponse()

    def spans(self) -> list[Span]:
        """What came so far."""
        with self._lock:
            return list(self._spans)

    def close(self) -> None:
        """Stops listening."""
        self._server.stop(0)


@dataclass
class Mesh:
    """A running mesh, as its user sees it."""

    home: Path
    process: subprocess.Popen[str]
    collector: Collector
    said: Path
    keys: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def endpoints(self) -> Endpoints:
        """Where the services are."""
        return Endpoints.read(self.home / "endpoints.json")

    def family(self) -> list[psutil.Process]:
        """Its processes, runners too, without the supervisor."""
        return psutil.Process(self.process.pid).children(recursive=True)

    @property
    def admin_key(self) -> str:
        """The platform admin's key."""
        return (self.home / "admin.key").read_text().strip()

    def pid(self, name: str) -> int:
        """The process that is the sidecar or a service now, or the next one where that has just died."""
        return int(until(lambda: self.pids().get(name), f"{name} runs"))

    def pids(self) -> dict[str, int]:
        """The process of each name; of one that has just died, none."""
        return {name: int(one["pid"]) for name, one in json.loads((self.home / "processes.json").read_text()).items()}

    def has_replaced(self, name: str, pid: int) -> bool:
        """Whether another process than that one is the sidecar or a service now."""
        return self.pids().get(name, pid) != pid

    def metrics_port(self, service: str) -> int:
        """Where a service's metrics are, as its log has it."""
        *_, port = (line["metrics_port"] for line in self.log(service) if line["message"] == "serving")
        return int(port)

    def log(self, name: str) -> list[dict[str, Any]]:
        """What a process has logged."""
        return lines(self.home / "logs" / f"{name}.jsonl")

    def client(self, key: str | None = None) -> Client:
        """A client; to be entered."""
        return Client(key, self.endpoints)

    def tenant(self, tenant_id: str, *, model: bool = True) -> str:
        """A key of the tenant that may do all within it; the tenant, its key and its model, if any, are made once."""
        if tenant_id not in self.keys:
            # A test that is tried again finds what its first try made.
            with self.client(self.admin_key) as admin:
                with suppress(AlreadyExists):
                    admin.create_tenant(tenant_id, licence_classes=("permissive", "copyleft"))
                roles = [ROLE_TENANT_ADMIN, ROLE_CALLER, ROLE_AUDITOR]
                key = admin.create_key(tenant=tenant_id, roles=roles).secret
            if model:
                self.add_model(key)
            self.keys[tenant_id] = key
        return self.keys[tenant_id]

    def add_model(self, key: str) -> None:
        """Gives a key's tenant its model, named faces."""
        with self.client(key) as client, suppress(AlreadyExists):
            client.create_model("faces", catalog_id="nudenet-320n", accept_licence="AGPL-3.0")


@contextmanager
def running(
    home: Path, collector: Collector, *arguments: str, variables: Mapping[str, str] | None = None,
) -> Iterator[Mesh]:
    """A mesh on free ports; it is stopped as its user would, and nothing of it may be left.

    Args:
        home: Its state folder.
        collector: Takes its traces.
        arguments: More for `facetmesh up`.
        variables: More for its environment.
    """
    environment = {
        **os.environ,
        "FACETMESH_HOME": str(home),
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.port}",
        "OTEL_BSP_SCHEDULE_DELAY": "200",
        "FACETMESH_SIGNING_KEY_RELOAD_S": "0.5",
        "FACETMESH_SIGNING_KEY_LEAD_S": "1",
        **(variables or {}),
    }
    said = home.with_suffix(".out")
    with said.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "facetmesh.cli", "up", "--port-base", "0", *arguments],
            env=environment, stdout=out, stderr=subprocess.STDOUT, text=True,
        )
    mesh = Mesh(home, process, collector, said)
    try:
        until(
            lambda: (home / "endpoints.json").exists() or process.poll() is not None,
            lambda: f"the mesh serves: {said.read_text()}",
        )
        assert process.poll() is None, said.read_text()
        yield mesh
        family = mesh.family() if process.poll() is None else []
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(DEADLINE_S)
        finally:
            process.kill()  # what it left ends with it
    assert none_left(family)


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    """Takes the traces of all services."""
    made = Collector()
    yield made
    made.close()


@pytest.fixture(scope="session")
def assets() -> dict[str, Path]:
    """The models and photos that the main job needs, fetched by hash."""
    return {
        asset_id: catalog.fetch(asset_id, accept_licence=catalog.asset(asset_id).licence)
        for asset_id in ("nudenet-320n", "blazeface-full", "blazeface-short", "facemesh", "photo-six-faces",
                         "photo-astronaut")
    }  # fmt: skip


@pytest.fixture(scope="session")
def mesh(tmp_path_factory: pytest.TempPathFactory, collector: Collector, assets: dict[str, Path]) -> Iterator[Mesh]:
    """The mesh that most tests share."""
    assert assets
    with running(tmp_path_factory.mktemp("mesh") / "home", collector) as made:
        yield made


@pytest.fixture(scope="session")
def group(assets: dict[str, Path]) -> bytes:
    """The photo with six faces."""
    return assets["photo-six-faces"].read_bytes()


@pytest.fixture(scope="session")
def astronaut(assets: dict[str, Path]) -> bytes:
    """The photo with one face."""
    return assets["photo-astronaut"].read_bytes()
