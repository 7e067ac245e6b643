"""What every call has in common: our errors in place of gRPC's, pages, names."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from facetmesh.fusion.v1 import fusion_pb2
from facetmesh.kit import status
from facetmesh.kit.errors import Internal, InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from google.longrunning import operations_pb2
    from google.protobuf.internal.enum_type_wrapper import _EnumTypeWrapper as EnumTypeWrapper

_Answer = TypeVar("_Answer")
_Value = TypeVar("_Value", bound=int)
_LARGEST_PAGE = 1000


def tenant_name(tenant: str) -> str:
    """The resource name of a tenant that is given by its name or its id."""
    return tenant if tenant.startswith("tenants/") else f"tenants/{tenant}"


def enum_value(values: EnumTypeWrapper[_Value], prefix: str, name: str) -> _Value:
    """The value of an enum by its name as people say it: of LICENCE_CLASS_NON_COMMERCIAL, non-commercial.

    Args:
        values: The enum.
        prefix: What its values' names begin with.
        name: Which of them.

    Raises:
        InvalidArgument: There is none; with PREFIX_UNKNOWN, as LICENCE_CLASS_UNKNOWN.
    """
    known = {
        wire.removeprefix(f"{prefix}_").lower().replace("_", "-"): value
        for wire, value in values.items() if not wire.endswith("_UNSPECIFIED")
    }  # fmt: skip
    if name not in known:
        kind = prefix.lower().replace("_", " ")
        raise InvalidArgument(
            f'There is no {kind} "{name}"; there are {", ".join(known)}.', reason=f"{prefix}_UNKNOWN"
        )
    return known[name]


async def result(call: Awaitable[_Answer]) -> _Answer:
    """The answer of a call, or our error in place of gRPC's."""
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise status.from_rpc_error(error) from None


@contextmanager
def stream(call: Any) -> Iterator[Any]:
    """A call whose answers are read within: our error in place of gRPC's; it ends with who reads no more of them."""
    try:
        yield call
    except grpc.aio.AioRpcError as error:
        raise status.from_rpc_error(error) from None
    finally:
        call.cancel()


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
