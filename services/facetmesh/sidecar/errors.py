"""The errors of Dapr's API, with daprd's status codes, texts and reasons.

The reasons are those of dapr/dapr v1.18, pkg/messages/errorcodes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping

    from facetmesh.kit.store import StoreError

_DOMAIN = "dapr.io"


class ApiError(Exception):
    """What a call ends with.

    Args:
        code: The status code.
        message: The text.
        reason: For programs; "" for none.
        metadata: Goes with the reason.
    """

    def __init__(
        self, code: grpc.StatusCode, message: str, reason: str = "", metadata: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.reason = reason
        self.metadata = dict(metadata or {})

    def status(self) -> status_pb2.Status:
        """As google.rpc.Status."""
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        if self.reason:
            info = error_details_pb2.ErrorInfo(reason=self.reason, domain=_DOMAIN, metadata=self.metadata)
            detail = any_pb2.Any()
            detail.Pack(info)
            status.details.append(detail)
        return status


def unauthenticated(detail: str) -> ApiError:
    """The caller has no token, or a wrong one."""
    return ApiError(
        grpc.StatusCode.UNAUTHENTICATED, "Unauthorized", "Unauthorized",
        {"http.code": "401", "http.error_message": detail},
    )


def not_found(kind: str, name: str, app: str, *, any_configured: bool) -> ApiError:
    """There is no state store or broker of that name for the app."""
    label, reason = {"state": ("state store", "DAPR_STATE"), "pubsub": ("pubsub", "DAPR_PUBSUB")}[kind]
    if not any_configured:
        return ApiError(
            grpc.StatusCode.FAILED_PRECONDITION, f"{label} {name} is not configured", f"{reason}_NOT_CONFIGURED",
            {"appID": app},
        )
    return ApiError(
        grpc.StatusCode.INVALID_ARGUMENT, f"{label} {name} is not found", f"{reason}_NOT_FOUND", {"appID": app}
    )


def secret_store_not_found(name: str, *, any_configured: bool) -> ApiError:
    """There is no secret store of that name for the app."""
    if not any_configured:
        return ApiError(grpc.StatusCode.FAILED_PRECONDITION, "secret store is not configured")
    return ApiError(grpc.StatusCode.INVALID_ARGUMENT, f"failed finding secret store with key {name}")


def secret_not_found(name: str, store: str) -> ApiError:
    """There is no such secret."""
    return ApiError(
        grpc.StatusCode.INTERNAL,
        f"failed getting secret with key {name} from secret store {store}: secret {name} not found",
    )


def store_failed(error: StoreError, message: str, reason: str) -> ApiError:
    """The file could not be read or written. Unlike daprd, a full disk is told apart."""
    code = grpc.StatusCode.RESOURCE_EXHAUSTED if error.full else grpc.StatusCode.INTERNAL
    return ApiError(code, message, reason)
