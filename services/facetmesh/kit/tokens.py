"""Auth as the other services see it: its public keys, its revocations, and tokens to act on behalf of a tenant."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
from google.protobuf.message import DecodeError

from facetmesh.auth.v1 import auth_pb2, auth_pb2_grpc
from facetmesh.event.v1 import event_pb2
from facetmesh.kit import status, telemetry
from facetmesh.kit.dapr import Disposition
from facetmesh.kit.errors import Unavailable
from facetmesh.kit.orders import OrderKind, TenantOrder
from facetmesh.kit.revocations import News, Revocation
from facetmesh.kit.tls import channel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from google.protobuf.message import Message

    from facetmesh.kit.dapr import Event, Handler
    from facetmesh.kit.tls import TlsFiles

_Answer = TypeVar("_Answer")
REVOCATIONS_TOPIC = "auth.revocations"
_TIMEOUT_S = 5.0
_SILENCE_S = 30.0
"""Auth says something every 10 s: after this the stream is dead, whatever TCP thinks."""
# Soon after auth is back, it is heard again: gRPC would wait for up to two minutes.
_OPTIONS = [("grpc.initial_reconnect_backoff_ms", 200), ("grpc.max_reconnect_backoff_ms", 1000)]
_log = logging.getLogger(__name__)
_REFRESH_BEFORE_S = 60.0
_ORDERS = {
    auth_pb2.TenantOrder.KIND_PURGE: OrderKind.PURGE, auth_pb2.TenantOrder.KIND_ROTATE_KEY: OrderKind.ROTATE_KEY,
}  # fmt: skip


class AuthClient:
    """A client of auth for one service.

    Args:
        address: host:port.
        files: How it is encrypted.
        service_key: The service's own API key.
        clock: Seconds since the epoch.
    """

    def __init__(
        self, address: str, files: TlsFiles, service_key: str, clock: Callable[[], float] = time.time
    ) -> None:
        self._channel = channel(address, files, _OPTIONS, telemetry.client_interceptors())
        self._stub = auth_pb2_grpc.AuthServiceStub(self._channel)
        self._key = service_key
        self._clock = clock
        self._tokens: dict[str, tuple[str, float]] = {}
        self._asking = asyncio.Lock()

    @property
    def channel(self) -> grpc.aio.Channel:
        """The connection, for others of auth's services."""
        return self._channel

    async def ask(self, method: Callable[..., Awaitable[_Answer]], request: Message) -> _Answer:
        """The answer of one of auth's methods, asked in this service's own name.

        Raises:
            FacetmeshError: What the call ended with.
        """
        metadata = (("authorization", f"Bearer {await self.token('')}"),)
        try:
            return await method(request, metadata=metadata, timeout=_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                self._tokens.pop("", None)
            raise status.from_rpc_error(error) from error

    async def jwks(self) -> str:
        """The JSON text of auth's JWK Set.

        Raises:
            Unavailable: Auth does not answer.
        """
        try:
            return (await self._stub.GetJwks(auth_pb2.GetJwksRequest(), timeout=_TIMEOUT_S)).json
        except grpc.aio.AioRpcError as error:
            raise status.from_rpc_error(error) from error

    async def revocations(self, after: int) -> AsyncIterator[News]:
        """Revocations after a sequence number, then each as it happens.

        Raises:
            Unavailable: Auth does not answer, or fell silent.
        """
        metadata = (("authorization", f"Bearer {await self.token('')}"),)
        call = self._stub.WatchRevocations(
            auth_pb2.WatchRevocationsRequest(after_sequence=after), metadata=metadata
        )
        try:
            while True:
                async with asyncio.timeout(_SILENCE_S):
                    response: Any = await call.read()
                if response is grpc.aio.EOF:
                    return
                yield News(
                    [revocation(message) for message in response.revocations], response.sequence,
                    [order(message) for message in response.orders],
                )
        except TimeoutError:
            raise Unavailable("Auth fell silent.", reason="AUTH_SILENT") from None
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                self.forget("")
            raise status.from_rpc_error(error) from error
        finally:
            call.cancel()

    def hear(self, revocations: Sequence[Revocation]) -> None:
        """Forgets tokens that no longer count."""
        for one in revocations:
            self.forget(one.name)

    def forget(self, tenant: str) -> None:
        """A token for tenants/{tenant}, or with "" for nobody, was refused: the next one is new."""
        self._tokens.pop(tenant, None)

    async def confirm(self, done: TenantOrder) -> None:
        """Says that this service has carried an order out.

        Raises:
            Unavailable: Auth does not answer.
        """
        metadata = (("authorization", f"Bearer {await self.token('')}"),)
        request = auth_pb2.ConfirmTenantOrderRequest(order=order_message(done))
        try:
            await self._stub.ConfirmTenantOrder(request, metadata=metadata, timeout=_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise status.from_rpc_error(error) from error

    async def token(self, tenant: str) -> str:
        """A token with which this service acts on behalf of tenants/{tenant}, kept until shortly before it expires.

        With "", on behalf of nobody.

        Raises:
            Unavailable: Auth does not answer.
            PermissionDenied: There is no such tenant.
        """
        async with self._asking:
            token, expires = self._tokens.get(tenant, ("", 0.0))
            if self._clock() < expires - _REFRESH_BEFORE_S:
                return token
            try:
                answer = await self._stub.IssueToken(
                    auth_pb2.IssueTokenRequest(key=self._key, tenant=tenant), timeout=_TIMEOUT_S
                )
            except grpc.aio.AioRpcError as error:
                raise status.from_rpc_error(error) from error
            self._tokens[tenant] = (answer.access_token, answer.expire_time.ToNanoseconds() / 1e9)
            return answer.access_token

    async def close(self) -> None:
        """Closes the connection."""
        await self._channel.close()


def revocation(message: event_pb2.Revocation) -> Revocation:
    """A revocation as it came."""
    return Revocation(message.name, message.time.ToMicroseconds() / 1e6, message.sequence)


def revocation_message(one: Revocation) -> event_pb2.Revocation:
    """A revocation as it is sent."""
    message = event_pb2.Revocation(name=one.name, sequence=one.sequence)
    message.time.FromMicroseconds(round(one.until_s * 1e6))
    return message


def order(message: auth_pb2.TenantOrder) -> TenantOrder:
    """An order as it came."""
    return TenantOrder(message.tenant_id, _ORDERS[message.kind], message.order_time.ToMicroseconds() / 1e6)


def order_message(one: TenantOrder) -> auth_pb2.TenantOrder:
    """An order as it is sent."""
    kinds = {kind: number for number, kind in _ORDERS.items()}
    message = auth_pb2.TenantOrder(tenant_id=one.tenant_id, kind=kinds[one.kind])
    message.order_time.FromMicroseconds(round(one.time_s * 1e6))
    return message


def revocation_handler(hear: Callable[[Sequence[Revocation]], None]) -> Handler:
    """Takes in what comes on REVOCATIONS_TOPIC, on which the broker lets only auth publish."""

    async def handle(events: Sequence[Event]) -> list[Disposition]:
        dispositions = []
        for event in events:
            try:
                hear([revocation(event_pb2.Revocation.FromString(event.data))])
                dispositions.append(Disposition.OK)
            except DecodeError:
                _log.error("what came is no revocation", extra={"event_id": event.id})
                dispositions.append(Disposition.DROP)
        return dispositions

    return handle
