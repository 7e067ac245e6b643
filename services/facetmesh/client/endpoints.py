"""Where the services are, and how to reach them."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from facetmesh.kit.errors import FailedPrecondition, InvalidArgument


@dataclass(frozen=True, slots=True)
class Tls:
    """How connections are encrypted."""

    root_certificates: bytes | None = None
    """PEM of the authorities that are trusted; the system's when None."""
    private_key: bytes | None = None
    """PEM of the client's own key, where the server asks for one."""
    certificate_chain: bytes | None = None
    """PEM of the client's own certificate."""


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The address of each service, as host:port. Behind a gateway all four are the same."""

    auth: str
    detection: str
    fusion: str
    audit: str
    tls: Tls | None = None
    """None: unencrypted, for the loopback only."""

    @classmethod
    def gateway(cls, address: str, tls: Tls | None) -> Endpoints:
        """All services behind one address.

        Raises:
            InvalidArgument: ADDRESS_INVALID; it is a URL, which gRPC would look up as a host's name.
        """
        if address.startswith(("http://", "https://")):
            raise InvalidArgument(
                f"The gateway's address is host:port, without https:// and path: {address} is not.",
                reason="ADDRESS_INVALID",
            )
        return cls(address, address, address, address, tls)

    @classmethod
    def read(cls, path: Path) -> Endpoints:
        """The addresses in an `endpoints.json`.

        Raises:
            FailedPrecondition: NO_ENDPOINTS; there is no such file, or something else is in it.
        """
        try:
            content = json.loads(path.read_text())
            auth, detection, fusion, audit = (str(content[name]) for name in ("auth", "detection", "fusion", "audit"))
        except (OSError, ValueError, KeyError, TypeError):
            raise FailedPrecondition(
                f"No mesh is known here ({path} does not say where it is): `facetmesh up` starts one.",
                reason="NO_ENDPOINTS",
            ) from None
        return cls(auth, detection, fusion, audit)

    @classmethod
    def default(cls) -> Endpoints:
        """Those of the mesh that `facetmesh up` runs on this machine.

        Raises:
            FailedPrecondition: NO_ENDPOINTS; none runs.
        """
        return cls.read(state_folder() / "endpoints.json")


def state_folder() -> Path:
    """Where `facetmesh up` keeps its state: FACETMESH_HOME, else the user's folder for state."""
    if chosen := os.environ.get("FACETMESH_HOME"):
        return Path(chosen).absolute()
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "facetmesh"
