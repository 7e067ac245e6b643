"""The ports on which an app finds its sidecar: Dapr's API over gRPC, health and metrics over HTTP."""

from __future__ import annotations

import hmac
import logging
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from aiohttp import web
from dapr.proto.runtime.v1 import dapr_pb2
from google.protobuf import message_factory
from grpc_status import rpc_status
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from facetmesh.sidecar import errors
from facetmesh.sidecar.errors import ApiError
from facetmesh.sidecar.servicer import METHODS, DaprServicer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from facetmesh.sidecar.metrics import Metrics

HOST = "127.0.0.1"
_SERVICE = "dapr.proto.runtime.v1.Dapr"
_TOKEN_HEADER = "dapr-api-token"  # noqa: S105 - a header's name
_LARGEST_MESSAGE_BYTES = 4 << 20  # daprd's default
_log = logging.getLogger(__name__)


class PortTaken(Exception):
    """Somebody listens there already; the message says where."""


def grpc_server(servicer: DaprServicer, api_token: str, port: int) -> tuple[grpc.aio.Server, int]:
    """A server for an app that knows the token, not yet started, and its port.

    Every method of Dapr's API that the servicer does not have is UNIMPLEMENTED.

    Raises:
        PortTaken: The port is taken.
    """
    server = grpc.aio.server(
        interceptors=[_TokenCheck(api_token)],
        options=[
            ("grpc.max_receive_message_length", _LARGEST_MESSAGE_BYTES),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),  # a taken port must be an error, not a lottery
        ],
    )
    methods = dapr_pb2.DESCRIPTOR.services_by_name["Dapr"].methods_by_name
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            _answered(getattr(servicer, name)),
            request_deserializer=message_factory.GetMessageClass(methods[name].input_type).FromString,
            response_serializer=message_factory.GetMessageClass(methods[name].output_type).SerializeToString,
        )
        for name in METHODS
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, handlers),))
    try:
        bound = server.add_insecure_port(f"{HOST}:{port}")
    except RuntimeError:
        bound = 0
    if not bound:
        raise PortTaken(f"port {port} on {HOST} is taken")
    return server, bound


async def http_server(healthy: Callable[[], Awaitable[bool]], metrics: Metrics, port: int) -> tuple[web.AppRunner, int]:
    """A running server of daprd's health paths and of /metrics, and its port.

    Raises:
        PortTaken: The port is taken.
    """

    async def health(_request: web.Request) -> web.Response:
        if await healthy():
            return web.Response(status=204)
        body = {"errorCode": "ERR_HEALTH_NOT_READY", "message": "dapr is not ready"}
        return web.json_response(body, status=500)

    async def counted(_request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.router.add_get("/v1.0/healthz", health)
    app.router.add_get("/v1.0/healthz/outbound", health)
    app.router.add_get("/metrics", counted)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, port).start()
    except OSError as error:
        await runner.cleanup()
        raise PortTaken(f"port {port} on {HOST} is taken") from error
    return runner, runner.addresses[0][1]


class _TokenCheck(grpc.aio.ServerInterceptor):
    """Lets only those in who know the app's token."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        metadata = dict(handler_call_details.invocation_metadata or ())
        given = metadata.get(_TOKEN_HEADER)
        if given is None:
            return _refusal("missing api token in request metadata")
        given = given if isinstance(given, bytes) else given.encode()
        if not hmac.compare_digest(given, self._token):
            return _refusal("authentication error: api token mismatch")
        return await continuation(handler_call_details)


def _refusal(detail: str) -> grpc.RpcMethodHandler[Any, Any]:
    async def refuse(_request: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        await context.abort_with_status(rpc_status.to_status(errors.unauthenticated(detail).status()))

    return grpc.unary_unary_rpc_method_handler(refuse)


def _answered(method: Callable[[Any, grpc.aio.ServicerContext[Any, Any]], Awaitable[Any]]) -> Any:
    """The method, with its errors as gRPC's."""

    async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        try:
            return await method(request, context)
        except ApiError as error:
            await context.abort_with_status(rpc_status.to_status(error.status()))

    return call
