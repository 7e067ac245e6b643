"""A mesh without a supervisor: each process is started as a cluster would, told all by its environment.

So something can stand between a service and its sidecar, a service can have another clock, and the sidecar can come
late. What dies stays dead.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import subprocess
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psutil
from tests.mesh.conftest import Mesh
from tests.mesh.rig import none_left

from facetmesh.cli.mesh.health import Health
from facetmesh.cli.mesh.home import Home
from facetmesh.cli.mesh.ports import SERVICES, Ports, choose
from facetmesh.cli.mesh.process import descendants
from facetmesh.cli.mesh.secrets import ensure

from .proxy import Proxy
from .world import DEADLINE_S, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

SIDECAR = "sidecar"
_GRACE_S = 30


@dataclass
class Parts(Mesh):
    """The processes, by name. As a Mesh it has no supervisor."""

    ports: Ports = field(default_factory=lambda: choose(0))
    started: dict[str, subprocess.Popen[str]] = field(default_factory=dict)
    tokens: dict[str, dict[str, str]] = field(default_factory=dict, repr=False)
    lifeline: int = -1
    """The read end of a pipe: all processes end with us."""

    def pid(self, name: str) -> int:
        """The process of that name."""
        return self.started[name].pid

    def family(self) -> list[psutil.Process]:
        """All processes, runners too."""
        processes = [psutil.Process(one.pid) for one in self.started.values() if one.poll() is None]
        return [found for process in processes for found in (process, *descendants(process))]

    async def serving(self) -> None:
        """Returns once all services serve."""
        async with asyncio.timeout(DEADLINE_S):
            for service in SERVICES:
                health = Health(self.ports.of(service).address)
                await health.until_serving()
                await health.close()

    def start_sidecar(self) -> None:
        """Starts the sidecar. Services find it behind the proxies."""
        apps = [self.ports.of(service) for service in SERVICES]
        self._start(
            SIDECAR, {"FACETMESH_SIDECAR_TOKENS": json.dumps(self.tokens)}, f"--home={self.home}",
            *(f"--app={one.service}:{one.dapr_grpc}:{one.dapr_http}:{one.callback}" for one in apps),
        )

    def start_service(self, service: str, variables: Mapping[str, str]) -> None:
        """Starts a service, which waits for its sidecar."""
        own = self.ports.of(service)
        self._start(service, {
            "FACETMESH_HOME": str(self.home),
            "FACETMESH_PORT": str(own.grpc),
            "FACETMESH_METRICS_PORT": str(own.metrics),
            "FACETMESH_AUTH_ADDRESS": self.ports.of("auth").address,
            "FACETMESH_DETECTION_ADDRESS": self.ports.of("detection").address,
            "APP_PORT": str(own.callback),
            "APP_API_TOKEN": self.tokens[service]["app_api_token"],
            "DAPR_GRPC_PORT": str(own.dapr_internal),
            "DAPR_HTTP_PORT": str(own.dapr_metrics),
            "DAPR_API_TOKEN": self.tokens[service]["dapr_api_token"],
            **variables,
        })  # fmt: skip

    def proxies(self) -> list[Proxy]:
        """What stands between each service and its sidecar. The ports they listen on are free without daprd."""
        return [
            proxy
            for own in map(self.ports.of, SERVICES)
            for proxy in (Proxy(own.dapr_internal, own.dapr_grpc), Proxy(own.dapr_metrics, own.dapr_http))
        ]

    def _start(self, name: str, environment: Mapping[str, str], *arguments: str) -> None:
        with (self.home / "logs" / f"{name}.jsonl").open("ab") as log:
            self.started[name] = subprocess.Popen(
                [sys.executable, "-P", "-m", f"facetmesh.{name}", *arguments],
                env={**os.environ, **environment, "FACETMESH_LIFELINE_FD": str(self.lifeline)},
                pass_fds=[self.lifeline], stdin=subprocess.DEVNULL, stdout=log, stderr=log, text=True,
            )


@dataclass(frozen=True)
class Interposed:
    """A mesh of parts, and what stands between them."""

    mesh: Parts
    proxies: list[Proxy]


@asynccontextmanager
async def parts(
    path: Path, *, variables: Mapping[str, Mapping[str, str]] | None = None, late: bool = False
) -> AsyncIterator[Interposed]:
    """A mesh of parts; nothing of it may be left.

    Args:
        path: Its state folder.
        variables: More for the environment of a service.
        late: The sidecar is left to the test to start.
    """
    home = Home(path)
    home.prepare()
    ensure(home)
    reader, writer = os.pipe()
    async with AsyncExitStack() as stack:
        stack.callback(os.close, reader)
        mesh = Parts(path, None, None, path, lifeline=reader)  # type: ignore[arg-type] - no supervisor, no traces
        mesh.tokens = {
            name: {"dapr_api_token": secrets.token_hex(), "app_api_token": secrets.token_hex()} for name in SERVICES
        }
        home.write(home.endpoints, {service: mesh.ports.of(service).address for service in SERVICES})
        proxies = [await stack.enter_async_context(proxy) for proxy in mesh.proxies()]
        try:
            if not late:
                mesh.start_sidecar()
            for service in SERVICES:
                mesh.start_service(service, (variables or {}).get(service, {}))
            yield Interposed(mesh, proxies)
            family = mesh.family()
        finally:
            os.close(writer)  # all end with their lifeline
            for process in mesh.started.values():
                await until(lambda process=process: process.poll() is not None, "it ends with its lifeline", _GRACE_S)
    assert none_left(family)
