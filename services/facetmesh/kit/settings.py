"""What a service is told from outside: environment variables, checked at start.

Names that Dapr's own tools set (DAPR_GRPC_PORT and its kin) are taken as they
are; ours begin with FACETMESH_. Secrets are not settings: they come from the
secret store.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path  # noqa: TC003 - pydantic needs it at run time
from typing import Annotated, ClassVar, Literal, TypeVar

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from facetmesh.kit.tls import TlsFiles

Port = Annotated[int, Field(ge=0, le=65535)]
_Settings = TypeVar("_Settings", bound="ServiceSettings")

MEBIBYTE = 1 << 20


class ServiceSettings(BaseSettings):
    """What every service needs to know. Each service adds its own fields."""

    model_config = SettingsConfigDict(env_prefix="FACETMESH_", frozen=True, extra="ignore", populate_by_name=True)

    service: ClassVar[str]
    """auth, detection, fusion or audit."""
    max_request_bytes: ClassVar[int] = MEBIBYTE
    """The largest message that a call may bring, in bytes."""
    enforces_limits: ClassVar[bool] = False
    """Whether calls count against their tenant's limits: in services that work with models."""

    home: Path
    """The state folder."""
    host: str = "127.0.0.1"
    """The address that is listened on."""
    port: Port = 0
    """The public gRPC port; 0 asks the system."""
    tls_cert: Path | None = None
    """PEM of the certificate of the public port, with those between it and its authority; unencrypted when None."""
    tls_key: Path | None = None
    """PEM of its private key."""
    tls_client_ca: Path | None = None
    """PEM of the authorities of clients' certificates: who has none is not let in."""
    tls_ca: Path | None = None
    """PEM of the authorities of the other services' certificates; they are spoken to unencrypted when None."""
    tls_gateway: str = ""
    """A name in the gateway's certificate: what it says of its callers is believed."""
    gateway_token: str = Field(default="", repr=False)
    """What a gateway on the same machine is recognised by, in place of a certificate."""
    allow_plaintext: bool = False
    """Whether the public port may be unencrypted on another address than the loopback."""
    metrics_port: Port = 0
    """The port of Prometheus metrics; 0 asks the system."""
    region: str = "local"
    """Where this process runs, as receipts say it."""
    auth_address: str = "127.0.0.1:7401"
    """host:port of the auth service."""
    token_issuer: str = "https://facetmesh.local/auth"  # noqa: S105 - a name, no secret
    """The `iss` of tokens."""
    token_audience: str = "facetmesh"  # noqa: S105 - a name, no secret
    """The `aud` of tokens."""
    max_concurrent_calls: Annotated[int, Field(ge=2)] = 256
    """Calls in progress; a tenant, or who is of none, has half of what others leave."""
    max_held_bytes: Annotated[int, Field(ge=1024 * MEBIBYTE)] = 2048 * MEBIBYTE
    """What the requests in progress may have together, in bytes; shared in the same way. One that is on its way counts
    as the largest."""
    secrets_reload_s: Annotated[float, Field(gt=0)] = 15.0
    """How often secrets that may change while the service runs are read again, in seconds."""
    alert_refusals: Annotated[int, Field(ge=1)] = 100
    """Refusals of one source, or of one tenant, in a window, that raise an alert."""
    alert_window_s: Annotated[float, Field(gt=0)] = 60.0
    """How long that window is, in seconds."""
    audit_accepted_by: Literal["broker", "journal"] = "broker"
    """What must have an audit event before its call is answered: the sidecar's broker, or a file in the state folder
    from which it is published soon after. Who loses the file loses the events of the last moment."""
    drain_s: Annotated[float, Field(ge=0)] = 10.0
    """How long calls in progress may take to end after SIGTERM, in seconds."""
    sidecar_wait_s: Annotated[float, Field(gt=0)] = 60.0
    """How long to wait for the Dapr sidecar at start, in seconds."""
    clock_offset_s: float = 0.0
    """Added to this process's clock, in seconds: to try out what clocks that differ do."""
    lifeline_fd: int | None = None
    """A pipe whose end means that the supervisor is gone."""
    dapr_grpc_port: Port = Field(default=50001, validation_alias="DAPR_GRPC_PORT")
    """The sidecar's gRPC port."""
    dapr_http_port: Port = Field(default=3500, validation_alias="DAPR_HTTP_PORT")
    """The sidecar's HTTP port."""
    dapr_api_token: str = Field(default="", validation_alias="DAPR_API_TOKEN", repr=False)
    """What the sidecar asks of the service."""
    secret_bundle: str = ""
    """Where a secret holds many values, as in Kubernetes: the name of the one with this service's, {service} for its
    own; "" where each is one of its own."""
    app_port: Port = Field(default=0, validation_alias="APP_PORT")
    """The loopback port on which the sidecar delivers events; 0 asks the system."""
    app_api_token: str = Field(default="", validation_alias="APP_API_TOKEN", repr=False)
    """What the service asks of the sidecar."""

    @property
    def tls(self) -> TlsFiles:
        """Where certificates and keys lie."""
        return TlsFiles(self.tls_cert, self.tls_key, self.tls_client_ca, self.tls_ca)

    def now(self) -> float:
        """The clock of this process: seconds since the epoch."""
        return time.time() + self.clock_offset_s


def load(settings: type[_Settings]) -> _Settings:
    """The settings from the environment; ends the process with a line for each that is wrong."""
    try:
        return settings()
    except ValidationError as error:
        for problem in error.errors():
            name = str(problem["loc"][0])
            variable = name if name.isupper() else f"FACETMESH_{name.upper()}"
            sys.stderr.write(f"{settings.service}: {variable}: {problem['msg']}\n")
        raise SystemExit(2) from None
