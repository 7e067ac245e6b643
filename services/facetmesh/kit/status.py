"""Our errors as google.rpc.Status, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf import any_pb2
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2, status_pb2

from facetmesh.kit.errors import (
    BY_CODE,
    FacetmeshError,
    FieldViolation,
    Internal,
    ResourceExhausted,
    Unavailable,
)

if TYPE_CHECKING:
    from google.protobuf.message import Message

DOMAIN = "facetmesh.dev"
DETAILS_KEY = "grpc-status-details-bin"
_MESSAGE_BYTES = 1000
_VIOLATIONS = 20
"""So much of a refusal is told. Callers get none whose metadata has more than 8 KB, and a request's own names, or a
rule that each of its thousand labels breaks, would make it as long as they like."""

_OVERWRITTEN = "Internal error from Core"
"""What grpc.aio says where a message could not be sent because the call had ended: it has lost what the call ended with
(https://github.com/grpc/grpc/issues/36066)."""


def to_status(error: FacetmeshError) -> status_pb2.Status:
    """The error as google.rpc.Status: ErrorInfo always, BadRequest, QuotaFailure and RetryInfo where they apply."""
    message = _short(error.message)
    details: list[Message] = [
        error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata)
    ]
    if error.violations:
        details.append(
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(field=v.field, description=v.description)
                    for v in error.violations[:_VIOLATIONS]
                ]
            )
        )
    if isinstance(error, ResourceExhausted):
        violation = error_details_pb2.QuotaFailure.Violation(subject=error.reason, description=message)
        details.append(error_details_pb2.QuotaFailure(violations=[violation]))
    if error.retry_after_s is not None:
        delay = Duration()
        delay.FromNanoseconds(int(error.retry_after_s * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    packed = []
    for detail in details:
        holder = any_pb2.Any()
        holder.Pack(detail)
        packed.append(holder)
    return status_pb2.Status(code=code_pb2.Code.Value(error.code), message=message, details=packed)


def from_status(status: status_pb2.Status) -> FacetmeshError:
    """The error that a google.rpc.Status stands for."""
    kind = BY_CODE.get(code_pb2.Code.Name(status.code), Internal)
    info, retry, bad = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo(), error_details_pb2.BadRequest()
    has_retry = False
    for detail in status.details:
        detail.Unpack(info)
        detail.Unpack(bad)
        has_retry |= detail.Unpack(retry)
    return kind(
        status.message,
        reason=info.reason or None,
        metadata=dict(info.metadata),
        retry_after_s=retry.retry_delay.ToNanoseconds() / 1e9 if has_retry else None,
        violations=[FieldViolation(v.field, v.description) for v in bad.field_violations],
    )


def from_rpc_error(error: grpc.aio.AioRpcError) -> FacetmeshError:
    """The error that a call of another service ended with."""
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            return from_status(status_pb2.Status.FromString(value))
    if error.details() == _OVERWRITTEN:
        return Unavailable("The call ended while its request was still being sent: try again.", reason="CALL_ENDED")
    return BY_CODE.get(error.code().name, Internal)(error.details() or error.code().name)


async def abort(context: grpc.aio.ServicerContext[Any, Any], error: FacetmeshError) -> None:
    """Ends a call with an error. Does not return."""
    told = to_status(error)
    await context.abort(
        getattr(grpc.StatusCode, error.code), told.message, trailing_metadata=((DETAILS_KEY, told.SerializeToString()),)
    )


def _short(message: str) -> str:
    """The beginning of a message that is too long."""
    data = message.encode()
    return message if len(data) <= _MESSAGE_BYTES else data[:_MESSAGE_BYTES].decode(errors="ignore") + "…"
