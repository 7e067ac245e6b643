"""Which process listens where."""

from __future__ import annotations

import random
import socket
from dataclasses import dataclass

from facetmesh.kit import errors

HOST = "127.0.0.1"
SERVICES = ("auth", "detection", "fusion", "audit")
DEFAULT_BASE = 7400
# Below the range from which the system takes ports for outgoing connections,
# so that nothing takes a port between our look and the service's start.
_FREE_RANGE = range(20_000, 32_000)
_TRIES = 50


@dataclass(frozen=True, slots=True)
class ServicePorts:
    """The ports of one service, all on the loopback."""

    service: str
    grpc: int
    """Its public API."""
    metrics: int
    """Prometheus, over HTTP."""
    dapr_grpc: int
    """Its sidecar's API."""
    dapr_http: int
    """Its sidecar's health."""
    callback: int
    """Where its sidecar delivers events."""
    dapr_internal: int
    """Where its daprd listens for other sidecars, of whom none calls."""
    dapr_metrics: int
    """Its daprd's metrics, over HTTP."""

    @property
    def address(self) -> str:
        """host:port of the public API."""
        return f"{HOST}:{self.grpc}"

    @property
    def all(self) -> tuple[int, ...]:
        """Every port."""
        return (
            self.grpc, self.metrics, self.dapr_grpc, self.dapr_http, self.callback, self.dapr_internal,
            self.dapr_metrics,
        )


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports of a mesh: the gateway at base, base+1 to 4 for the services' APIs, whatever else above.

    All are reserved, whether this mesh has a gateway and a daprd or not, so that a mesh keeps its ports when it gets
    one.
    """

    base: int

    def of(self, service: str) -> ServicePorts:
        """The ports of a service: one in each ten that are for services."""
        number = self.base + SERVICES.index(service) + 1
        return ServicePorts(service, *(number + ten for ten in (0, 10, 20, 30, 40, 60, 70)))

    @property
    def gateway(self) -> int:
        """Where the gateway takes all public traffic."""
        return self.base

    @property
    def gateway_admin(self) -> int:
        """Where the gateway is administered."""
        return self.base + 50

    @property
    def auth_http(self) -> int:
        """Where auth publishes, over HTTP, the keys that tokens are verified with."""
        return self.base + 51

    @property
    def ext_authz(self) -> int:
        """Where auth answers the gateway about API keys."""
        return self.base + 52

    @property
    def redis(self) -> int:
        """The Redis under daprd."""
        return self.base + 53

    @property
    def sentry(self) -> int:
        """Dapr's certificate authority."""
        return self.base + 54

    @property
    def sentry_health(self) -> int:
        """Its health, over HTTP."""
        return self.base + 55

    @property
    def all(self) -> tuple[int, ...]:
        """Every port."""
        return (
            self.gateway, self.gateway_admin, self.auth_http, self.ext_authz, self.redis, self.sentry,
            self.sentry_health, *(port for service in SERVICES for port in self.of(service).all),
        )

    def addresses(self, *, gateway: bool) -> dict[str, str]:
        """host:port of each service's API, and of the gateway where there is one."""
        own = {"gateway": f"{HOST}:{self.gateway}"} if gateway else {}
        return {service: self.of(service).address for service in SERVICES} | own

    def taken(self) -> list[int]:
        """Those that somebody listens on already."""
        return sorted(port for port in self.all if not _is_free(port))

    def check_free(self) -> None:
        """Returns when all are free.

        Raises:
            FailedPrecondition: PORTS_TAKEN.
        """
        if taken := self.taken():
            raise errors.FailedPrecondition(
                f"Ports are taken on {HOST}: {', '.join(map(str, taken))}. "
                "Stop what listens there, or choose others with --port-base (0 finds free ones).",
                reason="PORTS_TAKEN", metadata={"ports": ",".join(map(str, taken))},
            )


def choose(base: int) -> Ports:
    """The ports from base on; for 0, from a base where all are free.

    Raises:
        FailedPrecondition: PORTS_TAKEN.
    """
    if base:
        ports = Ports(base)
        ports.check_free()
        return ports
    for _ in range(_TRIES):
        ports = Ports(random.choice(_FREE_RANGE))  # noqa: S311 - no secret
        if not ports.taken():
            return ports
    raise errors.FailedPrecondition("No free ports were found: choose some with --port-base.", reason="PORTS_TAKEN")


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        # As servers do it: connections of a mesh that has just ended do not count.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
            listener.listen()
        except OSError:
            return False
    return True
