"""gRPC's handlers as the guard needs them: what they read, what there is none of, and what they raise."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, cast

import grpc
from google.protobuf.message import DecodeError

from facetmesh.kit import status, wire
from facetmesh.kit.errors import (
    Cancelled,
    DeadlineExceeded,
    FacetmeshError,
    Internal,
    InvalidArgument,
    Unimplemented,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from google.protobuf.descriptor import Descriptor
    from google.protobuf.message import Message

MESSAGE_S = 60.0
"""How long the message of a call that brings one may take to come: until then what is there of it is kept."""
_log = logging.getLogger(__name__)


class Generic:
    """Adds servicers to a server, of whose methods none is registered.

    For each registered method gRPC has a task that waits for its next call, and looks at all of them with every call
    that comes.

    Args:
        server: The server.
    """

    def __init__(self, server: grpc.aio.Server) -> None:
        self.add_generic_rpc_handlers = server.add_generic_rpc_handlers

    def add_registered_method_handlers(self, service_name: str, method_handlers: object) -> None:
        """Leaves out what generated code registers beside its generic handler."""


def message(data: bytes, kind: type[Message]) -> Message:
    """Reads a message.

    Raises:
        InvalidArgument: MESSAGE_MALFORMED; it is none.
    """
    try:
        wire.check(data, cast("Descriptor", kind.DESCRIPTOR))
        return kind.FromString(data)
    except DecodeError:
        raise InvalidArgument(
            f"The request is no message of this method's type, or has more than {wire.MAX_FIELDS} fields.",
            reason="MESSAGE_MALFORMED",
        ) from None


async def only(context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
    """The message of a call that brings one.

    Raises:
        InvalidArgument: REQUEST_MISSING.
        DeadlineExceeded: MESSAGE_SLOW: it did not come in time.
    """
    try:
        async with asyncio.timeout(MESSAGE_S):
            data = await context.read()
    except TimeoutError:
        raise DeadlineExceeded(f"The request did not come within {MESSAGE_S:.0f} s.", reason="MESSAGE_SLOW") from None
    if data is grpc.aio.EOF:
        raise InvalidArgument("The call has no message.", reason="REQUEST_MISSING")
    return cast("bytes", data)


def no_such_method() -> grpc.RpcMethodHandler[Any, Any]:
    """A handler that says that there is none, without reading anything."""

    async def refuse(_: AsyncIterator[Any], context: grpc.aio.ServicerContext[Any, Any]) -> None:
        await status.abort(context, Unimplemented("There is no such method here.", reason="METHOD_UNKNOWN"))

    return grpc.stream_unary_rpc_method_handler(refuse)


def known(error: BaseException) -> FacetmeshError | None:
    """What a call ended with, as an error of ours; None where there is nothing to tell anybody."""
    if isinstance(error, FacetmeshError):
        return error
    if isinstance(error, grpc.aio.AioRpcError):
        return status.from_rpc_error(error)
    if isinstance(error, asyncio.CancelledError):
        return Cancelled("The caller went away.", reason="CALLER_GONE")
    if isinstance(error, Exception) and not isinstance(error, grpc.aio.AbortError):
        _log.error("a call failed through our fault", exc_info=error)
        return Internal("An internal error. It has been logged.")
    return None
