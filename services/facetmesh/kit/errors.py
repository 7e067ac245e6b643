"""The one tree of errors, which the RPC interceptor maps to google.rpc.Status.

    FacetmeshError
    ├── InvalidArgument       the request is wrong and will stay wrong
    ├── Unauthenticated       nobody could be recognised
    ├── PermissionDenied      recognised, and not allowed
    ├── NotFound
    ├── AlreadyExists
    ├── Aborted               somebody else changed it meanwhile: read, then retry
    ├── FailedPrecondition    the system must be changed first
    ├── ResourceExhausted     a limit: retry after `retry_after_s`
    ├── Unavailable           a part is down: retry after `retry_after_s`
    ├── DeadlineExceeded
    ├── Cancelled
    ├── Unimplemented
    └── Internal              our fault

A message is read by the caller: it says what to do, and nothing about other
tenants. What else is known goes to the log.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """What is wrong with one field of a request."""

    field: str
    """Path of the field, such as `fusion.face_model`."""
    description: str
    """What was expected of it."""


class FacetmeshError(Exception):
    """What every error of ours is.

    Args:
        message: One sentence for the caller.
        reason: UPPER_SNAKE_CASE, stable, for programs: ErrorInfo's reason.
        metadata: What a program may want beside it. No secrets.
        retry_after_s: When a repeat may succeed, in seconds; None if none will.
        violations: The request's faulty fields.
    """

    code: ClassVar[str] = "INTERNAL"
    """The name of the gRPC status code."""
    default_reason: ClassVar[str] = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        metadata: Mapping[str, str] | None = None,
        retry_after_s: float | None = None,
        violations: Sequence[FieldViolation] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason
        self.metadata = dict(metadata or {})
        self.retry_after_s = retry_after_s
        self.violations = tuple(violations)


class InvalidArgument(FacetmeshError):
    """The request is wrong and will stay wrong."""

    code = "INVALID_ARGUMENT"
    default_reason = "INVALID_ARGUMENT"


class Unauthenticated(FacetmeshError):
    """Nobody could be recognised."""

    code = "UNAUTHENTICATED"
    default_reason = "UNAUTHENTICATED"


class PermissionDenied(FacetmeshError):
    """Recognised, and not allowed."""

    code = "PERMISSION_DENIED"
    default_reason = "PERMISSION_DENIED"


class NotFound(FacetmeshError):
    """There is no such thing, or the caller may not know that there is."""

    code = "NOT_FOUND"
    default_reason = "NOT_FOUND"


class AlreadyExists(FacetmeshError):
    """The name is taken."""

    code = "ALREADY_EXISTS"
    default_reason = "ALREADY_EXISTS"


class Aborted(FacetmeshError):
    """Somebody else changed it meanwhile."""

    code = "ABORTED"
    default_reason = "CONFLICT"


class FailedPrecondition(FacetmeshError):
    """The system must be changed first; the message says how."""

    code = "FAILED_PRECONDITION"
    default_reason = "FAILED_PRECONDITION"


class ResourceExhausted(FacetmeshError):
    """A limit was reached."""

    code = "RESOURCE_EXHAUSTED"
    default_reason = "RESOURCE_EXHAUSTED"


class Unavailable(FacetmeshError):
    """A part of the system is down."""

    code = "UNAVAILABLE"
    default_reason = "UNAVAILABLE"


class DeadlineExceeded(FacetmeshError):
    """It took longer than allowed."""

    code = "DEADLINE_EXCEEDED"
    default_reason = "DEADLINE_EXCEEDED"


class Cancelled(FacetmeshError):
    """The caller asked to stop."""

    code = "CANCELLED"
    default_reason = "CANCELLED"


class Unimplemented(FacetmeshError):
    """There is no such method here."""

    code = "UNIMPLEMENTED"
    default_reason = "UNIMPLEMENTED"


class Internal(FacetmeshError):
    """Our fault."""


BY_CODE: Mapping[str, type[FacetmeshError]] = {
    kind.code: kind
    for kind in (
        InvalidArgument, Unauthenticated, PermissionDenied, NotFound, AlreadyExists, Aborted, FailedPrecondition,
        ResourceExhausted, Unavailable, DeadlineExceeded, Cancelled, Unimplemented, Internal,
    )
}
"""The class of each status code's name: to raise again what crossed a process boundary."""
