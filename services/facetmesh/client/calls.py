"""What every call has in common: our errors in place of gRPC's, pages, names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from facetmesh.auth.v1 import auth_pb2
from facetmesh.fusion.v1 import fusion_pb2
from facetmesh.kit import status
from facetmesh.kit.errors import Internal, InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from google.longrunning import operations_pb2

_Answer = TypeVar("_Answer")
_LARGEST_PAGE = 1000


def tenant_name(tenant: str) -> str:
    """The resource name of a tenant that is given by its name or its id."""
    return tenant if tenant.startswith("tenants/") else f"tenants/{tenant}"


def licence_class(name: str) -> auth_pb2.LicenceClass.ValueType:
    """A class of licences by its name: permissive, copyleft or non-commercial.

    Raises:
        InvalidArgument: There is no such class.
    """
    try:
        return auth_pb2.LicenceClass.Value(f"LICENCE_CLASS_{name.upper().replace('-', '_')}")
    except ValueError:
        raise InvalidArgument(
            f'There is no class of licences "{name}"; there are permissive, copyleft and non-commercial.',
            reason="LICENCE_CLASS_UNKNOWN",
        ) from None


def priority(name: str) -> fusion_pb2.Priority.ValueType:
    """A priority by its name: vip, standard or batch.

    Raises:
        InvalidArgument: There is no such priority.
    """
    try:
        return fusion_pb2.Priority.Value(f"PRIORITY_{name.upper()}")
    except ValueError:
        raise InvalidArgument(
            f'There is no priority "{name}"; there are vip, standard and batch.', reason="PRIORITY_UNKNOWN"
        ) from None


async def result(call: Awaitable[_Answer]) -> _Answer:
    """The answer of a call, or our error in place of gRPC's."""
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise status.from_rpc_error(error) from None


async def pages(call: Callable[[Any], Awaitable[Any]], request: Any, field: str, limit: int | None) -> list[Any]:
    """What a List method returns, page after page, at most limit."""
    found: list[Any] = []
    while limit is None or len(found) < limit:
        request.page_size = min(_LARGEST_PAGE, limit - len(found)) if limit is not None else _LARGEST_PAGE
        page = await result(call(request))
        found.extend(getattr(page, field))
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    return found


def fusion_of(operation: operations_pb2.Operation) -> fusion_pb2.Fusion:
    """What an operation that is done made."""
    if operation.HasField("error"):
        raise status.from_status(operation.error)
    fusion = fusion_pb2.Fusion()
    if not operation.response.Unpack(fusion):
        raise Internal("The operation ended without a fusion.", reason="RESPONSE_INVALID")
    return fusion
