"""How daprd, its Redis and its certificate authority are run on one machine."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from facetmesh.kit import files

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_HOST = "127.0.0.1"
_GRACE_S = 12
"""How long a sidecar that is to end waits for what an app still handles: longer than components/redis/resiliency.yaml
lets it take, and shorter than the supervisor waits. Who is not done by then makes it end with exit code 1."""


@dataclass(frozen=True, slots=True)
class Redis:
    """A Redis of the mesh's own: on the loopback, behind a password, and every write on the disk before it is answered.

    Group commit makes that cheap: what arrives together shares one fsync.
    """

    program: Path
    folder: Path
    """Where its data lies."""
    port: int
    password: str

    def command(self) -> Sequence[str]:
        """What to run. Writes its configuration, because everybody can read a process's arguments."""
        settings = {
            "bind": _HOST,
            "port": self.port,
            "requirepass": self.password,
            "dir": self.folder,
            "appendonly": "yes",
            "appendfsync": "always",
            "save": '""',
            "maxmemory-policy": "noeviction",
        }
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        configuration = self.folder / "redis.conf"
        text = "".join(f"{name} {value}\n" for name, value in settings.items())
        files.write(configuration, text, mode=files.PRIVATE)
        return [str(self.program), str(configuration)]

    def environment(self) -> Mapping[str, str]:
        """What the components of components/redis ask for."""
        return {"FACETMESH_REDIS": f"{_HOST}:{self.port}", "FACETMESH_REDIS_PASSWORD": self.password}


@dataclass(frozen=True, slots=True)
class Sentry:
    """Dapr's certificate authority: it gives each sidecar the certificate that others know it by.

    On one machine it certifies whoever asks it under the name that they give, as the API tokens, not these
    certificates, tell the services apart; on Kubernetes it asks the cluster who they are.
    """

    program: Path
    folder: Path
    """Where its keys lie."""
    port: int
    health_port: int
    configuration: Path
    """The Configuration of the sidecars."""

    @property
    def address(self) -> str:
        """host:port for sidecars."""
        return f"{_HOST}:{self.port}"

    @property
    def health(self) -> str:
        """The URL that answers once it serves."""
        return f"http://{_HOST}:{self.health_port}/healthz"

    @property
    def anchors(self) -> Path:
        """The certificate that sidecars trust; there once it serves."""
        return self.folder / "ca.crt"

    def command(self) -> Sequence[str]:
        """What to run. Forgets the keys of earlier starts, so that none ever expires: it makes new ones."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(mode=0o700, parents=True)
        return _command(self.program, {
            "issuer-credentials": self.folder,
            "config": self.configuration,
            "listen-address": _HOST,
            "port": self.port,
            "healthz-port": self.health_port,
            "enable-metrics": "false",
            "log-as-json": "true",
        })  # fmt: skip


@dataclass(frozen=True, slots=True)
class Daprd:
    """One app's sidecar. It reads files named in its components relative to the folder it is started in."""

    program: Path
    app: str
    grpc_port: int
    """The sidecar's API."""
    http_port: int
    """The sidecar's health."""
    callback_port: int
    """Where the app takes events; 0 if it takes none."""
    internal_port: int
    """For other sidecars, whom nobody calls. Its default follows from the app's id: two replicas would collide."""
    components: Path
    """The folder of components, subscriptions and policies, with configuration.yaml."""
    metrics_port: int = 0
    """Prometheus, over HTTP; 0 for none."""
    sentry: Sentry | None = None
    """Who certifies it to other sidecars; None leaves their port without TLS."""

    @property
    def health(self) -> str:
        """The URL that answers once it can be called, whether its app is there or not."""
        return f"http://{_HOST}:{self.http_port}/v1.0/healthz/outbound"

    @property
    def content_of(self) -> Mapping[str, Path]:
        """The variables that it is told by the content of files."""
        return {"DAPR_TRUST_ANCHORS": self.sentry.anchors} if self.sentry else {}

    def command(self) -> Sequence[str]:
        """What to run. The tokens go by the environment."""
        arguments: dict[str, object] = {
            "app-id": self.app,
            "dapr-listen-addresses": _HOST,
            "dapr-internal-grpc-listen-address": _HOST,
            "dapr-internal-grpc-port": self.internal_port,
            "dapr-grpc-port": self.grpc_port,
            "dapr-http-port": self.http_port,
            "resources-path": self.components,
            "config": self.components / "configuration.yaml",
            "dapr-graceful-shutdown-seconds": _GRACE_S,
            "enable-metrics": "true" if self.metrics_port else "false",
            "metrics-listen-address": _HOST,
            "metrics-port": self.metrics_port,
            "log-as-json": "true",
        }
        if self.callback_port:
            # Without the health check, what comes while the app is away uses up its tries.
            arguments |= {
                "app-port": self.callback_port,
                "app-protocol": "grpc",
                "enable-app-health-check": "true",
                "app-health-probe-interval": 1,
                "app-health-probe-timeout": 900,
                "app-health-threshold": 1,
            }
        if self.sentry:
            arguments |= {"enable-mtls": "true", "sentry-address": self.sentry.address}
        return _command(self.program, arguments)


def _command(program: Path, arguments: Mapping[str, object]) -> Sequence[str]:
    return [str(program), *(f"--{name}={value}" for name, value in arguments.items())]
