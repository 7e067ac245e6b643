"""Typed clients for a mesh, asynchronous and blocking.

Example:
    with Client(key) as client:
        answer = client.detect("faces", Path("photo.jpg").read_bytes())
"""

from facetmesh.access.v1.access_pb2 import ROLE_AUDITOR, ROLE_CALLER, ROLE_OPERATOR, ROLE_TENANT_ADMIN, Role
from facetmesh.client.aio import AsyncClient
from facetmesh.client.blocking import Client
from facetmesh.client.endpoints import Endpoints, Tls
from facetmesh.client.fusing import FusedImage
from facetmesh.client.fusion_options import FusionOptions
from facetmesh.kit.errors import (
    Aborted,
    AlreadyExists,
    Cancelled,
    DeadlineExceeded,
    FacetmeshError,
    FailedPrecondition,
    FieldViolation,
    Internal,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)

__all__ = [
    "ROLE_AUDITOR",
    "ROLE_CALLER",
    "ROLE_OPERATOR",
    "ROLE_TENANT_ADMIN",
    "Aborted",
    "AlreadyExists",
    "AsyncClient",
    "Cancelled",
    "Client",
    "DeadlineExceeded",
    "Endpoints",
    "FacetmeshError",
    "FailedPrecondition",
    "FieldViolation",
    "FusedImage",
    "FusionOptions",
    "Internal",
    "InvalidArgument",
    "NotFound",
    "PermissionDenied",
    "ResourceExhausted",
    "Role",
    "Tls",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
]
