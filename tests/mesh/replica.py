"""Another replica of a service of the mesh."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc

from .rig import DEADLINE_S, lines, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .conftest import Mesh


@dataclass(frozen=True, slots=True)
class Replica:
    """One that serves."""

    address: str
    """host:port of its API."""
    metrics: str
    """host:port of its metrics."""


@contextmanager
def second_detection(mesh: Mesh, home: Path, **variables: str) -> Iterator[Replica]:
    """Another detection process beside the mesh's own, on the same sidecar.

    Args:
        mesh: Whose.
        home: Its state folder, which is made.
        variables: More for its environment.
    """
    home.mkdir()
    environment = psutil.Process(mesh.pid("detection")).environ()
    environment.pop("FACETMESH_LIFELINE_FD", None)
    environment |= {
        "FACETMESH_PORT": "0", "FACETMESH_METRICS_PORT": "0", "APP_PORT": "0", "FACETMESH_HOME": str(home),
        **variables,
    }  # fmt: skip
    said = home / "said.jsonl"
    with said.open("w") as out:
        command = [sys.executable, "-m", "facetmesh.detection"]
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=out)

    def serving() -> Replica | None:
        assert process.poll() is None, said.read_text()
        told = next((line for line in lines(said) if line["message"] == "serving"), None)
        return told and Replica(*(f"127.0.0.1:{told[one]}" for one in ("port", "metrics_port")))

    try:
        replica: Replica = until(serving, "the second detection listens")
        with grpc.insecure_channel(replica.address) as channel:
            health = health_pb2_grpc.HealthStub(channel)

            def serves() -> bool:
                assert process.poll() is None
                with contextlib.suppress(grpc.RpcError):
                    answer = health.Check(health_pb2.HealthCheckRequest(), timeout=5)
                    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
                return False

            until(serves, "the second detection serves")
        yield replica
    finally:
        process.terminate()
        process.wait(DEADLINE_S)
