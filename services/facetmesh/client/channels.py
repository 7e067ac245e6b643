"""Channels whose deadlines and retries are gRPC's own, by its service config."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import grpc

from facetmesh import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

    from facetmesh.client.endpoints import Tls

MAX_MESSAGE_BYTES = 64 << 20
"""As much as the services read: two images of 20 MB each, and enough above to be told what is wrong."""
DEFAULT_TIMEOUT_S = 15
_TIMEOUTS_S = {
    ("facetmesh.detection.v1.DetectionService", "Detect"): 60,
    ("facetmesh.detection.v1.DetectionService", "CreateModel"): 60,
    ("facetmesh.fusion.v1.FusionService", "CreateFusion"): 60,
    ("facetmesh.fusion.v1.FusionService", "WaitOperation"): 90,
    ("facetmesh.fusion.v1.FusionService", "DownloadFusion"): 60,
    ("facetmesh.audit.v1.AuditService", "GetReceipt"): 45,
}
_IDEMPOTENT = {
    "facetmesh.auth.v1.AuthService": (
        # CreateTenant by its request_id. Not CreateKey: each call makes a key.
        "CreateTenant", "GetTenant", "ListTenants", "ListKeys", "RevokeKey", "IssueToken", "GetJwks",
    ),
    "facetmesh.detection.v1.DetectionService": ("Detect", "CreateModel", "GetModel", "ListModels"),
    "facetmesh.fusion.v1.FusionService": (
        "CreateFusion", "GetOperation", "ListOperations", "WaitOperation", "CancelOperation", "DownloadFusion",
    ),
    "facetmesh.audit.v1.AuditService": ("GetCheckpoint", "GetConsistencyProof", "GetReceipt", "ListEvents"),
}
_RETRY = {
    "maxAttempts": 4,
    "initialBackoff": "0.1s",
    "maxBackoff": "2s",
    "backoffMultiplier": 3,
    "retryableStatusCodes": ["UNAVAILABLE"],
}


def service_config() -> dict[str, Any]:
    """The deadline of each method, and retries of those that may be repeated (gRPC A6)."""
    methods: list[dict[str, Any]] = [{"name": [{}], "timeout": f"{DEFAULT_TIMEOUT_S}s"}]
    for service, names in _IDEMPOTENT.items():
        for name in names:
            timeout_s = _TIMEOUTS_S.get((service, name), DEFAULT_TIMEOUT_S)
            methods.append(
                {"name": [{"service": service, "method": name}], "timeout": f"{timeout_s}s", "retryPolicy": _RETRY}
            )
    return {"methodConfig": methods}


def open_channel(
    address: str, tls: Tls | None, interceptors: Sequence[grpc.aio.ClientInterceptor] = (),
) -> grpc.aio.Channel:
    """A channel to a service.

    Args:
        address: host:port.
        tls: How it is encrypted; None for not at all.
        interceptors: What is added to each call.
    """
    options = [
        ("grpc.service_config", json.dumps(service_config())),
        # A request must be kept whole to be sent again; gRPC's default keeps 256 KiB.
        ("grpc.per_rpc_retry_buffer_size", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.primary_user_agent", f"facetmesh-python/{__version__}"),
    ]
    if tls is None:
        return grpc.aio.insecure_channel(address, options=options, interceptors=interceptors)
    credentials = grpc.ssl_channel_credentials(tls.root_certificates, tls.private_key, tls.certificate_chain)
    return grpc.aio.secure_channel(address, credentials, options=options, interceptors=interceptors)
