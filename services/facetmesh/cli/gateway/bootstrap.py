"""Envoy's configuration for one machine: the template gateway/envoy.yaml, filled in."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from facetmesh.cli.gateway import api, replies, tls
from facetmesh.kit.errors import FailedPrecondition

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from facetmesh.cli.gateway.settings import GatewaySettings

_HOST = "127.0.0.1"
_PLACE = re.compile(r"\$\{(\w+)\}")
_TIMEOUT_S = 60
"""For an answer that takes no waiting: what a service takes is bounded by its own limits before."""
_MARGIN_S = 5
_ABSENT = object()
BOOTSTRAP, _DESCRIPTORS = "envoy.json", "api.binpb"
_NOT_GRPC = {
    "name": "content-type", "string_match": {"prefix": "application/grpc"}, "invert_match": True,
    "treat_missing_header_as_empty": True,
}  # fmt: skip
_OPENAPI, _KEYS = "/openapi.json", "/.well-known/jwks.json"
"""Pages for everybody."""


@dataclass(frozen=True, slots=True)
class Sites:
    """Which port is whose, all on the loopback but the gateway's own."""

    gateway: int
    """Where the gateway takes all public traffic."""
    admin: int
    """Where it says whether it is ready and what it has counted."""
    services: Mapping[str, Sequence[int]]
    """The API of each service, a port for each replica."""
    keys: int
    """Where auth publishes the keys that verify tokens."""
    ext_authz: int
    """Where auth exchanges API keys."""
    token: str = field(default="", repr=False)
    """What the gateway is recognised by at the services."""


def configuration(settings: GatewaySettings, sites: Sites, folder: Path) -> dict[str, bytes]:
    """The files that Envoy is configured by: their contents by name, BOOTSTRAP first of all.

    Args:
        settings: What it is told.
        sites: Where everybody is.
        folder: Where the files will be.

    Raises:
        FailedPrecondition: A setting is wrong.
    """
    secrets = tls.secrets(settings.tls)
    values = {
        "host": settings.host,
        "port": sites.gateway,
        "admin_port": sites.admin,
        "transport_socket": tls.transport_socket(folder, secrets),
        "client_cert_details": "SANITIZE_SET" if secrets else "SANITIZE",
        "trusted_hops": settings.trusted_hops,
        "tracing": _tracing() if settings.traces else None,
        "local_replies": replies.local_replies(),
        "descriptors": str(folder / _DESCRIPTORS),
        "rest_services": api.rest_services(),
        "source_bucket": _bucket(settings.source_per_s),
        "anonymous_bucket": _bucket(settings.anonymous_per_s),
        "tenant_bucket": _bucket(settings.tenant_per_s),
        "issuer": settings.issuer,
        "audience": settings.audience,
        "jwks_refresh": f"{settings.keys_refresh_s}s",
        "token_rules": _token_rules(),
        "gateway_token": sites.token,
        "routes": _routes(),
        "cors": _cors(settings.origins.split(",")) if settings.origins else None,
        "clusters": _clusters(settings, sites),
    }
    main = filled(yaml.safe_load(shipped("envoy.yaml").read_text()), values)
    texts = {name: json.dumps(content, indent=2).encode() for name, content in {BOOTSTRAP: main, **secrets}.items()}
    return texts | {_DESCRIPTORS: api.descriptor_set()}


def shipped(name: str) -> Path:
    """A file of gateway/, of the package or of the checkout that it runs from.

    Raises:
        FailedPrecondition: PACKAGE_INCOMPLETE; it is in neither.
    """
    package = Path(__file__).resolve().parents[2]
    for folder in (package / "_data" / "gateway", package.parent.parent / "gateway"):
        if (folder / name).exists():
            return folder / name
    raise FailedPrecondition(f"The package has no gateway/{name}.", reason="PACKAGE_INCOMPLETE")


def filled(node: Any, values: Mapping[str, Any]) -> Any:
    """A YAML node with each `${name}` replaced by its value; where that is None, the key or item goes."""
    if isinstance(node, dict):
        made = {key: filled(value, values) for key, value in node.items()}
        return {key: value for key, value in made.items() if value is not _ABSENT}
    if isinstance(node, list):
        return [item for item in (filled(item, values) for item in node) if item is not _ABSENT]
    if isinstance(node, str) and (place := _PLACE.fullmatch(node)):
        value = values[place[1]]
        return _ABSENT if value is None else value
    return node


def _token_rules() -> list[dict[str, Any]]:
    """Envoy takes the first rule that fits: public methods need no token, all else does."""
    methods = [method for method in api.methods() if method.public]
    matches: list[dict[str, Any]] = [{"path": path} for path in (_OPENAPI, _KEYS, *(one.path for one in methods))]
    matches += [{"safe_regex": {"regex": path}} for one in methods for path in one.rest_paths]
    public = [{"match": match} for match in matches]
    return [*public, {"match": {"prefix": "/"}, "requires": {"provider_name": "facetmesh"}}]


def _routes() -> list[dict[str, Any]]:
    """One for each method: what is not here is not reached, such as what services only say to each other.

    REST has one for all, which is left as soon as the transcoder knows the method (and refuses where it knows none).
    """
    unbuffered = _without("envoy.filters.http.buffer")
    as_it_is = _without("envoy.filters.http.grpc_json_transcoder")
    methods = [
        {"match": {"path": method.path}, "route": {"cluster": method.service, **_timeouts(method)}, **unbuffered}
        for method in api.methods()
    ]
    page = {"status": 200, "body": {"filename": str(shipped("openapi.json"))}}
    json_type = {"header": {"key": "content-type", "value": "application/json"}}
    return [
        {"match": {"path": _OPENAPI}, "direct_response": page, "response_headers_to_add": [json_type], **as_it_is},
        {"match": {"path": _KEYS}, "route": {"cluster": "auth_keys"}, **as_it_is},
        *methods,
        {"match": {"prefix": "/", "headers": [_NOT_GRPC]}, "route": {"cluster": "auth"}},
    ]


def _without(name: str) -> dict[str, Any]:
    """What turns a filter off on a route."""
    off = {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": True}
    return {"typed_per_filter_config": {name: off}}


def _timeouts(method: api.Method) -> dict[str, Any]:
    if method.streams:
        return {"timeout": "0s"}
    longest = f"{max(_TIMEOUT_S, method.longest_wait_s + _MARGIN_S)}s"
    # What gRPC callers set themselves counts, up to that.
    return {"timeout": longest, "max_stream_duration": {"grpc_timeout_header_max": longest}}


def _bucket(per_s: int) -> dict[str, Any]:
    """A TokenBucket that holds two seconds' worth."""
    return {"max_tokens": 2 * per_s, "tokens_per_fill": per_s, "fill_interval": "1s"}


def _cors(origins: Sequence[str]) -> dict[str, Any]:
    return {
        "envoy.filters.http.cors": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy",
            "allow_origin_string_match": [{"exact": origin} for origin in origins],
            "allow_methods": "GET, POST, PATCH, DELETE",
            "allow_headers": "authorization, x-api-key, content-type, x-grpc-web, x-user-agent, grpc-timeout, "
                             "x-facetmesh-model, traceparent",
            "expose_headers": "grpc-status, grpc-message, grpc-status-details-bin",
            "max_age": "600",
        }
    }  # fmt: skip


def _clusters(settings: GatewaySettings, sites: Sites) -> list[dict[str, Any]]:
    http2 = {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {
                "http2_protocol_options": {"connection_keepalive": {"interval": "10s", "timeout": "5s"}},
            },
        }
    }
    watched = {
        "health_checks": [{
            "timeout": "3s", "interval": "2s", "no_traffic_interval": "2s", "unhealthy_threshold": 2,
            "healthy_threshold": 1, "grpc_health_check": {},
        }],
        # Who is the only one is never ejected: half of them must stay.
        "outlier_detection": {"consecutive_5xx": 20, "consecutive_gateway_failure": 5, "max_ejection_percent": 50},
        # Where less than half of them serve, all are asked: what they refuse with says more than we could.
        "common_lb_config": {"healthy_panic_threshold": {"value": 50}},
        "circuit_breakers": {"thresholds": [{"max_requests": 4096, "max_pending_requests": 4096, "max_retries": 16}]},
    }  # fmt: skip
    made = [
        _cluster(name, _HOST, *ports, typed_extension_protocol_options=http2, **watched)
        for name, ports in sites.services.items()
    ]
    made += [
        _cluster("ext_authz", _HOST, sites.ext_authz, typed_extension_protocol_options=http2),
        _cluster("auth_keys", _HOST, sites.keys),
    ]
    if settings.traces:
        made.append(_cluster("traces", *_host_and_port(settings.traces), typed_extension_protocol_options=http2))
    return made


def _cluster(name: str, host: str, *ports: int, **more: Any) -> dict[str, Any]:
    endpoints = [
        {"endpoint": {"address": {"socket_address": {"address": host, "port_value": port}}}} for port in ports
    ]
    return {
        "name": name, "type": "STRICT_DNS", "connect_timeout": "2s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
        **more,
    }  # fmt: skip


def _tracing() -> dict[str, Any]:
    return {
        "provider": {
            "name": "envoy.tracers.opentelemetry",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig",
                "grpc_service": {"envoy_grpc": {"cluster_name": "traces"}, "timeout": "5s"},
                "service_name": "facetmesh-gateway",
            },
        }
    }


def _host_and_port(url: str) -> tuple[str, int]:
    match = re.fullmatch(r"http://([\w.-]+|\[[0-9a-fA-F:]+\])(?::(\d{1,5}))?/?", url)
    if match is None:
        raise FailedPrecondition(
            f"OTEL_EXPORTER_OTLP_ENDPOINT: {url} is no http://host:port.", reason="TRACES_ENDPOINT_INVALID"
        )
    return match[1].strip("[]"), int(match[2] or 4317)
