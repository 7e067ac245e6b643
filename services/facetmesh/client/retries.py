"""How long each method may take and which are tried again, as gRPC's service config says it."""

from __future__ import annotations

from typing import Any

DEFAULT_TIMEOUT_S = 15
_TIMEOUTS_S: dict[tuple[str, str], int | None] = {
    ("facetmesh.detection.v1.DetectionService", "Detect"): 60,
    ("facetmesh.detection.v1.DetectionService", "BatchDetect"): 120,
    ("facetmesh.detection.v1.DetectionService", "DetectStream"): None,
    ("facetmesh.detection.v1.ModelService", "CreateModel"): 90,
    ("facetmesh.detection.v1.ModelService", "UploadModel"): 1800,
    ("facetmesh.detection.v1.ModelService", "QuantizeModelVersion"): 900,
    ("facetmesh.fusion.v1.FusionService", "CreateFusion"): 60,
    ("facetmesh.fusion.v1.ImageService", "UploadImage"): 120,
    ("facetmesh.fusion.v1.FusionService", "WaitOperation"): 90,
    ("facetmesh.fusion.v1.FusionService", "WatchOperation"): None,
    ("facetmesh.fusion.v1.FusionService", "DownloadFusion"): 60,
    ("facetmesh.audit.v1.AuditService", "GetReceipt"): 45,
    ("facetmesh.audit.v1.AuditService", "WatchEvents"): None,
    ("facetmesh.audit.v1.AuditService", "ExportEvents"): None,
}
_IDEMPOTENT = {
    "facetmesh.auth.v1.AuthService": (
        # CreateTenant by its request_id. Not CreateKey and RotateKey: each call makes a
        # secret. Nor DeleteTenant and its
        # opposite: a repeat is told that it is done.
        "CreateTenant", "GetTenant", "ListTenants", "UpdateTenant", "SuspendTenant", "ResumeTenant", "ListKeys",
        "RevokeKey", "IssueToken", "GetJwks",
    ),
    "facetmesh.detection.v1.DetectionService": ("Detect", "BatchDetect"),
    "facetmesh.detection.v1.ModelService": (
        # Not what takes an etag: a repeat would be told of its own change. An upload goes on where it was cut off.
        "CreateModel", "GetModel", "ListModels", "GetUpload", "GetModelVersion", "ListModelVersions", "GetModelPolicy",
    ),
    "facetmesh.detection.v1.RolloutService": (
        # Not CreateRollout: a repeat would be told that there is one.
        "GetRollout", "ListRollouts", "PauseRollout", "ResumeRollout", "PromoteRollout", "AbortRollout",
    ),
    "facetmesh.fusion.v1.FusionService": (
        "CreateFusion", "GetOperation", "ListOperations", "WaitOperation", "CancelOperation", "DownloadFusion",
        "LookUpFusion", "DeleteFusion", "LinkFusion",
    ),
    "facetmesh.fusion.v1.ConsentService": ("CreateConsent", "GetConsent", "ListConsents", "RevokeConsent"),
    # A stream is not sent again by gRPC: the client does it itself.
    "facetmesh.fusion.v1.ImageService": ("GetImage", "ListImages"),
    "facetmesh.audit.v1.AuditService": (
        "GetCheckpoint", "GetConsistencyProof", "GetInclusionProof", "GetLogFile", "GetReceipt", "GetRetention",
        "ListEvents",
    ),
}
_RETRY = {
    "maxAttempts": 4,
    "initialBackoff": "0.1s",
    "maxBackoff": "2s",
    "backoffMultiplier": 3,
    "retryableStatusCodes": ["UNAVAILABLE"],
}


def timeout_s(method: str) -> int | None:
    """How long a method may take, in seconds; None for what has no end.

    Args:
        method: As gRPC spells it: /package.Service/Method.
    """
    service, _, name = method.strip("/").partition("/")
    return _TIMEOUTS_S.get((service, name), DEFAULT_TIMEOUT_S)


def service_config() -> dict[str, Any]:
    """The deadline of each method, and retries of those that may be repeated (gRPC A6)."""
    repeated = {(service, name) for service, names in _IDEMPOTENT.items() for name in names}
    methods: list[dict[str, Any]] = [{"name": [{}], "timeout": f"{DEFAULT_TIMEOUT_S}s"}]
    for service, name in sorted(repeated | _TIMEOUTS_S.keys()):
        longest_s = timeout_s(f"/{service}/{name}")
        methods.append({
            "name": [{"service": service, "method": name}],
            **({} if longest_s is None else {"timeout": f"{longest_s}s"}),
            **({"retryPolicy": _RETRY} if (service, name) in repeated else {}),
        })
    return {"methodConfig": methods}
