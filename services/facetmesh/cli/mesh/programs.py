"""What the processes of a mesh run, and what each is told."""

from __future__ import annotations

import json
import os
import secrets
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from facetmesh.cli.mesh.ports import SERVICES, Ports
from facetmesh.cli.mesh.process import Program

if TYPE_CHECKING:
    from collections.abc import Mapping

    from facetmesh.cli.mesh.home import Home

SIDECAR = "sidecar"
_KEPT_FROM_SERVICES = ("FACETMESH_KEY",)
"""What stands in the user's environment and is none of the services' business."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a service and its sidecar recognise each other by: new at each start, in no file."""

    dapr: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    """What the sidecar asks of the service."""
    app: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    """What the service asks of the sidecar."""


def programs(home: Home, ports: Ports, *, lifeline_fd: int) -> list[Program]:
    """The sidecar and the services, in the order in which they are started."""
    tokens = {service: Tokens() for service in SERVICES}
    inherited = {name: value for name, value in os.environ.items() if name not in _KEPT_FROM_SERVICES}

    def program(name: str, environment: Mapping[str, str], *arguments: str) -> Program:
        return Program(
            name=name,
            # -P: a folder that `up` happens to be started in must not shadow a module.
            command=(sys.executable, "-P", "-m", f"facetmesh.{name}", *arguments),
            environment={**inherited, **environment},
            log=home.logs / f"{name}.jsonl",
            lifeline_fd=lifeline_fd,
        )

    return [
        program(SIDECAR, _sidecar_environment(tokens), *_sidecar_arguments(home, ports)),
        *(program(service, _environment(home, ports, service, tokens[service])) for service in SERVICES),
    ]


def _environment(home: Home, ports: Ports, service: str, tokens: Tokens) -> dict[str, str]:
    own = ports.of(service)
    return {
        "FACETMESH_HOME": str(home.path),
        "FACETMESH_PORT": str(own.grpc),
        "FACETMESH_METRICS_PORT": str(own.metrics),
        "FACETMESH_AUTH_ADDRESS": ports.of("auth").address,
        "FACETMESH_DETECTION_ADDRESS": ports.of("detection").address,
        "APP_ID": service,
        "APP_PORT": str(own.callback),
        "APP_API_TOKEN": tokens.app,
        "DAPR_GRPC_PORT": str(own.dapr_grpc),
        "DAPR_HTTP_PORT": str(own.dapr_http),
        "DAPR_API_TOKEN": tokens.dapr,
    }


def _sidecar_arguments(home: Home, ports: Ports) -> list[str]:
    apps = (ports.of(service) for service in SERVICES)
    return [
        f"--home={home.path}",
        *(f"--app={own.service}:{own.dapr_grpc}:{own.dapr_http}:{own.callback}" for own in apps),
    ]


def _sidecar_environment(tokens: Mapping[str, Tokens]) -> dict[str, str]:
    # The environment, because everybody can read a process's arguments.
    return {
        "FACETMESH_SIDECAR_TOKENS": json.dumps(
            {service: {"dapr_api_token": own.dapr, "app_api_token": own.app} for service, own in tokens.items()}
        )
    }
