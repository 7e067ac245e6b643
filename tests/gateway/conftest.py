"""One real mesh with the gateway in front of it, and more gateways in front of the same mesh."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
from tests.mesh.conftest import Collector, Mesh, assets, astronaut, collector, group, running
from tests.mesh.rig import DEADLINE_S, until

from facetmesh.cli.gateway.bootstrap import BOOTSTRAP, Sites
from facetmesh.cli.gateway.settings import GatewaySettings
from facetmesh.cli.mesh import binaries
from facetmesh.cli.mesh.gateway import Envoy
from facetmesh.cli.mesh.ports import SERVICES, Ports, choose
from facetmesh.client import Client, Endpoints

from .http import Http

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["assets", "astronaut", "collector", "group"]  # fixtures


@dataclass
class Gate:
    """A mesh behind its gateway."""

    mesh: Mesh
    ports: Ports

    @property
    def http(self) -> Http:
        """Plain HTTP, without credentials."""
        return Http(self.ports.gateway)

    @property
    def sites(self) -> Sites:
        """Who is where."""
        ports = self.ports
        return Sites(
            gateway=ports.gateway, admin=ports.gateway_admin, keys=ports.auth_http, ext_authz=ports.ext_authz,
            services={service: (ports.of(service).grpc,) for service in SERVICES}, token=self._gateway_token,
        )

    @property
    def _gateway_token(self) -> str:
        """What the mesh's own gateway is recognised by, made at its start."""
        found = re.search(r'"x-facetmesh-gateway",\s*"value": "([^"]+)"', (
            self.mesh.home / "gateway" / BOOTSTRAP
        ).read_text())
        assert found is not None
        return found[1]

    @property
    def log(self) -> str:
        """What the gateway has written."""
        return (self.mesh.home / "logs" / "gateway.jsonl").read_text()

    def client(self, key: str | None = None) -> Client:
        """A gRPC client that goes through the gateway; to be entered."""
        return Client(key, Endpoints.gateway(f"127.0.0.1:{self.ports.gateway}", None))

    def token(self, tenant: str = "acme") -> str:
        """A token of a tenant's key, asked for through the gateway."""
        reply = self.http.post("/v1/tokens:issue", {"key": self.mesh.tenant(tenant)})
        assert reply.status == 200, reply.body
        return str(reply.json["accessToken"])


@pytest.fixture(scope="session")
def gate(
    tmp_path_factory: pytest.TempPathFactory, collector: Collector, assets: dict[str, Path]
) -> Iterator[Gate]:
    """The mesh of this folder's tests."""
    assert assets
    home = tmp_path_factory.mktemp("gateway") / "home"
    # As short as the lead of the tests' signing keys.
    with running(home, collector, "--gateway", variables={"FACETMESH_GATEWAY_KEYS_REFRESH_S": "1"}) as mesh:
        address = json.loads((home / "endpoints.json").read_text())["gateway"]
        yield Gate(mesh, Ports(int(address.rpartition(":")[2])))


@contextmanager
def another(gate: Gate, folder: Path, *, dead: tuple[str, ...] = (), **told: Any) -> Iterator[Http]:
    """One more gateway in front of the same mesh.

    Args:
        gate: The mesh.
        folder: Where its files go.
        dead: Which services it looks for where nobody is; "keys" and "ext_authz" too.
        told: Its settings.
    """
    ports = choose(0)
    sites = replace(gate.sites, gateway=ports.gateway, admin=ports.gateway_admin)
    nobody = ports.redis
    sites = replace(
        sites, services={name: (nobody,) if name in dead else own for name, own in sites.services.items()},
        **{name: nobody for name in ("keys", "ext_authz") if name in dead},
    )
    with running_envoy(Envoy(binaries.envoy(), folder / "envoy", GatewaySettings(**told), sites)):
        yield Http(ports.gateway)


@contextmanager
def in_front_of(gate: Gate, folder: Path, *detections: int) -> Iterator[Envoy]:
    """One more gateway of the same mesh, with these ports as detection's replicas."""
    ports = choose(0)
    sites = replace(gate.sites, gateway=ports.gateway, admin=ports.gateway_admin)
    sites = replace(sites, services={**sites.services, "detection": detections})
    envoy = Envoy(binaries.envoy(), folder / "envoy", GatewaySettings(), sites)
    with running_envoy(envoy):
        yield envoy


@contextmanager
def running_envoy(envoy: Envoy) -> Iterator[None]:
    """Runs an Envoy until the context ends."""
    command = envoy.command()
    with (envoy.folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        until(lambda: process.poll() is not None or answers(envoy.health), "the gateway is ready")
        assert process.poll() is None, (envoy.folder / "log").read_text()[-3000:]
        yield
    finally:
        process.terminate()
        process.wait(DEADLINE_S)


def answers(url: str) -> bool:
    """Whether a GET succeeds."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - our own loopback
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
