"""What the processes of a mesh run, and what each is told."""

from __future__ import annotations

import functools
import json
import os
import secrets
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from facetmesh.cli.gateway import settings
from facetmesh.cli.gateway.bootstrap import Sites
from facetmesh.cli.mesh import binaries, components, launcher
from facetmesh.cli.mesh.daprd import Daprd, Redis, Sentry
from facetmesh.cli.mesh.gateway import Envoy
from facetmesh.cli.mesh.health import until_ok, until_open, until_serving
from facetmesh.cli.mesh.layout import Layout, Sidecar
from facetmesh.cli.mesh.ports import SERVICES, Ports
from facetmesh.cli.mesh.process import Program, Tier

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from pathlib import Path

    from facetmesh.cli.mesh.home import Home

SIDECAR = "sidecar"
_KEPT_FROM_SERVICES = ("FACETMESH_KEY",)
"""What stands in the user's environment and is none of the services' business."""
_QUIET = {"GRPC_VERBOSITY": "NONE"}
"""gRPC writes a line for each header that it cannot read: strangers without a token filled disks with 2 GB a minute."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a service and its sidecar recognise each other by: new at each start, in no file."""

    dapr: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    """What the sidecar asks of the service."""
    app: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    """What the service asks of the sidecar."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a mesh runs: what all of its programs are made from."""

    home: Home
    ports: Ports
    lifeline_fd: int

    def ours(
        self, name: str, tier: Tier, environment: Mapping[str, str], serving: Callable[[], Awaitable[None]],
        *arguments: str,
    ) -> Program:
        """A module of facetmesh that watches the lifeline."""
        # -P: a folder that `up` happens to be started in must not shadow a module.
        command = (sys.executable, "-P", "-m", f"facetmesh.{name}", *arguments)
        return Program(
            name, tier, command, {**_QUIET, **_inherited(), **environment}, self.home.logs / f"{name}.jsonl", serving,
            lifeline_fd=self.lifeline_fd,
        )

    def others(
        self, name: str, tier: Tier, command: Sequence[str], serving: Callable[[], Awaitable[None]],
        environment: Mapping[str, str] | None = None, content_of: Mapping[str, Path] | None = None,
    ) -> Program:
        """A program that knows nothing of us, started in the state folder and ended with the supervisor."""
        launched = (sys.executable, "-I", "-S", launcher.__file__, str(os.getpid()), *command)
        return Program(
            name, tier, launched, {**_inherited(), **(environment or {})}, self.home.logs / f"{name}.jsonl", serving,
            folder=self.home.path, content_of=content_of or {},
        )


def programs(place: Place, layout: Layout) -> list[Program]:
    """All of a mesh, tier by tier.

    Raises:
        FailedPrecondition: A program of others is missing, or a component file is wrong.
    """
    tokens = {service: Tokens() for service in SERVICES}
    gateway_token = secrets.token_urlsafe(32)
    sidecars = _dapr if layout.sidecar is Sidecar.DAPRD else _embedded
    return [
        *sidecars(place, layout, tokens),
        *(_service(place, service, tokens[service], gateway_token) for service in SERVICES),
        *([_gateway(place, gateway_token)] if layout.gateway else []),
    ]


def _service(place: Place, service: str, tokens: Tokens, gateway_token: str) -> Program:
    ports = place.ports
    own = ports.of(service)
    environment = {
        "FACETMESH_HOME": str(place.home.path),
        "FACETMESH_PORT": str(own.grpc),
        "FACETMESH_METRICS_PORT": str(own.metrics),
        "FACETMESH_AUTH_ADDRESS": ports.of("auth").address,
        "FACETMESH_GATEWAY_TOKEN": gateway_token,
        "FACETMESH_AUDIT_ACCEPTED_BY": "journal",  # it is on the same disk as the broker's
        "FACETMESH_DETECTION_ADDRESS": ports.of("detection").address,
        "APP_ID": service,
        "APP_PORT": str(own.callback),
        "APP_API_TOKEN": tokens.app,
        "DAPR_GRPC_PORT": str(own.dapr_grpc),
        "DAPR_HTTP_PORT": str(own.dapr_http),
        "DAPR_API_TOKEN": tokens.dapr,
    }
    if service == "auth":
        environment |= {
            "FACETMESH_HTTP_PORT": str(ports.auth_http), "FACETMESH_EXT_AUTHZ_PORT": str(ports.ext_authz),
        }
    return place.ours(service, Tier.SERVICES, environment, functools.partial(until_serving, own.address))


def _gateway(place: Place, token: str) -> Program:
    """Envoy in front of the services."""
    ports = place.ports
    sites = Sites(
        gateway=ports.gateway, admin=ports.gateway_admin, keys=ports.auth_http, ext_authz=ports.ext_authz,
        services={service: (ports.of(service).grpc,) for service in SERVICES}, token=token,
    )
    envoy = Envoy(binaries.envoy(), place.home.path / "gateway", settings.load(), sites)
    return place.others("gateway", Tier.GATEWAY, envoy.command(), functools.partial(until_ok, envoy.health))


def _embedded(place: Place, layout: Layout, tokens: Mapping[str, Tokens]) -> list[Program]:
    """One process for all services."""
    apps = [place.ports.of(service) for service in SERVICES]
    arguments = [f"--home={place.home.path}"]
    if layout.components:
        arguments.append(f"--components={layout.components}")
    arguments += [f"--app={own.service}:{own.dapr_grpc}:{own.dapr_http}:{own.callback}" for own in apps]
    # The environment, because everybody can read a process's arguments.
    told = {service: {"dapr_api_token": own.dapr, "app_api_token": own.app} for service, own in tokens.items()}
    environment = {"FACETMESH_SIDECAR_TOKENS": json.dumps(told)}
    serving = functools.partial(until_open, *(own.dapr_grpc for own in apps))
    return [place.ours(SIDECAR, Tier.SIDECARS, environment, serving, *arguments)]


def _dapr(place: Place, layout: Layout, tokens: Mapping[str, Tokens]) -> list[Program]:
    """A daprd for each service, their Redis, and who certifies them to each other."""
    ports = place.ports
    folder = layout.components or components.own()
    resources = components.check(folder)
    program = binaries.daprd()
    redis = Redis(binaries.redis_server(), place.home.path / "redis", ports.redis, secrets.token_urlsafe(32))
    sentry = Sentry(
        binaries.sentry(), place.home.path / "sentry", ports.sentry, ports.sentry_health,
        folder / "configuration.yaml",
    )
    made = [
        place.others("redis", Tier.STORES, redis.command(), functools.partial(until_open, redis.port)),
        place.others("sentry", Tier.STORES, sentry.command(), functools.partial(until_ok, sentry.health)),
    ]
    for service, own_tokens in tokens.items():
        own = ports.of(service)
        sidecar = Daprd(
            program, service, own.dapr_grpc, own.dapr_http,
            callback_port=own.callback if resources.subscribes(service) else 0,
            internal_port=own.dapr_internal, components=folder, metrics_port=own.dapr_metrics, sentry=sentry,
        )
        environment = {
            **redis.environment(), "DAPR_API_TOKEN": own_tokens.dapr, "APP_API_TOKEN": own_tokens.app,
        }
        made.append(
            place.others(
                f"daprd-{service}", Tier.SIDECARS, sidecar.command(), functools.partial(until_ok, sidecar.health),
                environment, sidecar.content_of,
            )
        )
    return made


def _inherited() -> Mapping[str, str]:
    return {name: value for name, value in os.environ.items() if name not in _KEPT_FROM_SERVICES}
