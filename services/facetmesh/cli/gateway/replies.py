"""What the gateway refuses by itself: in the same form as services do, a google.rpc.Status with a reason.

Envoy chooses among these by expressions over the request (CEL). Who speaks gRPC gets
the status in `grpc-status-details-bin`, everybody else as JSON.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from google.protobuf import json_format

from facetmesh.kit import errors, status

if TYPE_CHECKING:
    from collections.abc import Sequence

_SPEAKS_GRPC = [
    {"header_filter": {"header": {"name": "content-type", "string_match": {"prefix": "application/grpc"}}}},
    # What the transcoder has made gRPC came as something else.
    {"header_filter": {"header": {"name": "x-envoy-original-path", "present_match": True, "invert_match": True}}},
]


@dataclass(frozen=True, slots=True)
class _Reply:
    """An answer of Envoy's own, and what stands for it."""

    condition: str
    """In CEL."""
    error: errors.FacetmeshError
    """Its message may hold Envoy's own %COMMANDS%."""
    http_status: int | None = None
    """Where Envoy's own would mislead."""


def _details(*names: str) -> str:
    """Whether Envoy names one of these as the cause."""
    return " || ".join(f"response.code_details.contains('{name}')" for name in names)


_REPLIES: Sequence[_Reply] = (
    _Reply(
        _details("jwt_authn_access_denied{Jwt_is_missing}"),
        errors.Unauthenticated(
            "A token is required: exchange an API key for one with IssueToken.", reason="TOKEN_MISSING"
        ),
    ),
    _Reply(
        _details("jwt_authn_access_denied{Jwt_is_expired}"),
        errors.Unauthenticated("The token has expired: exchange the key again.", reason="TOKEN_EXPIRED"),
    ),
    _Reply(
        _details("jwt_authn_access_denied{Jwks_remote_fetch"),
        errors.Unavailable("Tokens cannot be checked yet.", reason="AUTH_UNREACHABLE", retry_after_s=1),
        http_status=503,
    ),
    _Reply(
        _details("jwt_authn_access_denied"),
        errors.Unauthenticated("The token does not hold.", reason="TOKEN_INVALID"),
    ),
    _Reply(
        _details("ext_authz_denied") + " && response.code == 401",
        errors.Unauthenticated("The API key is not valid.", reason="KEY_INVALID"),
    ),
    _Reply(
        _details("ext_authz"),
        errors.Unavailable("Keys cannot be checked now.", reason="AUTH_UNREACHABLE", retry_after_s=1),
    ),
    _Reply(
        _details("local_rate_limited"),
        errors.ResourceExhausted("Too many requests.", reason="RATE_LIMITED", retry_after_s=1),
    ),
    _Reply(
        "response.code == 413",
        errors.InvalidArgument("The request is too large.", reason="REQUEST_TOO_LARGE"),
    ),
    _Reply(
        "response.code == 431",
        errors.InvalidArgument("The headers are too large.", reason="HEADERS_TOO_LARGE"),
    ),
    _Reply(
        "response.code == 404 || response.code == 405",
        errors.Unimplemented("There is no such method here.", reason="METHOD_UNKNOWN"),
    ),
    _Reply(
        "response.code == 504 || " + _details("response_timeout", "max_duration_timeout"),
        errors.DeadlineExceeded("The service did not answer in time.", reason="TIMEOUT"),
    ),
    _Reply(
        "response.code == 408",
        errors.DeadlineExceeded("The request did not arrive in time.", reason="TIMEOUT"),
    ),
    _Reply(
        "response.code >= 500",
        errors.Unavailable("The service is not there now.", reason="SERVICE_UNREACHABLE", retry_after_s=1),
    ),
    _Reply(
        "response.code >= 400",
        errors.InvalidArgument(
            "The request is not of this method's form: %LOCAL_REPLY_BODY%", reason="REQUEST_MALFORMED"
        ),
    ),
)


def local_replies() -> dict[str, Any]:
    """Envoy's LocalReplyConfig."""
    return {"mappers": [mapper for reply in _REPLIES for mapper in _mappers(reply)]}


def _mappers(reply: _Reply) -> list[dict[str, Any]]:
    said = status.to_status(reply.error)
    condition = {
        "extension_filter": {
            "name": "envoy.access_loggers.extension_filters.cel",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter",
                "expression": reply.condition,
            },
        }
    }
    override = {} if reply.http_status is None else {"status_code": reply.http_status}
    details = base64.b64encode(said.SerializeToString()).decode()
    return [
        {
            "filter": {"and_filter": {"filters": [*_SPEAKS_GRPC, condition]}},
            **override,
            "headers_to_add": [{
                "header": {"key": status.DETAILS_KEY, "value": details},
                # What auth said of a key stands.
                "append_action": "ADD_IF_ABSENT",
            }],
            "body_format_override": {"text_format_source": {"inline_string": reply.error.message}},
        },
        {
            "filter": condition,
            **override,
            "body_format_override": {"json_format": json_format.MessageToDict(said)},
        },
    ]  # fmt: skip
