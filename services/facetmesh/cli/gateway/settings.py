"""What the gateway is told from outside: environment variables, checked at start."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from facetmesh.kit.errors import FailedPrecondition

_PREFIX = "FACETMESH_GATEWAY_"
_Origins = Annotated[str, Field(pattern=r"^(https?://[\w.:-]+(,https?://[\w.:-]+)*)?$"), NoDecode]
_Rate = Annotated[int, Field(ge=1, le=1_000_000)]


class GatewaySettings(BaseSettings):
    """What is decided by those who run a gateway. Rates say where a flood begins: shares are the services' business."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, frozen=True, extra="ignore", populate_by_name=True)

    host: str = "127.0.0.1"
    """The address that is listened on."""
    tls: Annotated[Path, AfterValidator(Path.absolute)] | None = None
    """A folder with tls.crt and tls.key, and ca.crt where clients must have certificates; plain HTTP when unset."""
    origins: _Origins = ""
    """The web origins whose pages may call, with commas between them."""
    trusted_hops: Annotated[int, Field(ge=0, le=10)] = 0
    """How many proxies of one's own are in front of it, whose x-forwarded-for counts."""
    tenant_per_s: _Rate = 2_000
    """Requests of one tenant, whoever sends them; for two seconds it may be twice as many."""
    source_per_s: _Rate = 1_000
    """Requests from one address."""
    anonymous_per_s: _Rate = 50
    """Requests from one address with neither token nor key: who asks for tokens, and who tries his luck."""
    keys_refresh_s: Annotated[float, Field(ge=1, le=3600)] = 30.0
    """How often auth's keys are fetched again, in seconds."""
    issuer: str = Field("https://facetmesh.local/auth", validation_alias="FACETMESH_TOKEN_ISSUER")
    """The `iss` of tokens."""
    audience: str = Field("facetmesh", validation_alias="FACETMESH_TOKEN_AUDIENCE")
    """The `aud` of tokens."""
    traces: str = Field("", validation_alias="OTEL_EXPORTER_OTLP_ENDPOINT")
    """Where spans go (OTLP over gRPC), as http://host:port; nowhere when empty."""


def load() -> GatewaySettings:
    """The settings from the environment.

    Raises:
        FailedPrecondition: SETTING_INVALID; the message names each variable that is wrong.
    """
    try:
        return GatewaySettings()
    except ValidationError as error:
        problems = (f"{_variable(str(one['loc'][0]))}: {one['msg']}" for one in error.errors())
        raise FailedPrecondition("; ".join(problems), reason="SETTING_INVALID") from None


def _variable(name: str) -> str:
    return name if name.isupper() else f"{_PREFIX}{name.upper()}"
