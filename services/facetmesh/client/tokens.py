"""The exchange of an API key for tokens, and the tokens on each call."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import grpc

from facetmesh.auth.v1 import auth_pb2, auth_pb2_grpc
from facetmesh.client.retries import timeout_s
from facetmesh.kit import status

if TYPE_CHECKING:
    from collections.abc import Callable

_REFRESH_AT = 0.8
"""The part of its life after which a token is replaced, so that none expires on its way."""


class TokenSource:
    """Exchanges a key for a token, keeps it, and replaces it in time.

    Args:
        channel: To auth.
        key: The API key.
        clock: Seconds since the epoch.
    """

    def __init__(self, channel: grpc.aio.Channel, key: str, clock: Callable[[], float] = time.time) -> None:
        self._stub = auth_pb2_grpc.AuthServiceStub(channel)
        self._key = key
        self._clock = clock
        self._token: auth_pb2.IssueTokenResponse | None = None
        self._refresh_at = 0.0
        self._asking = asyncio.Lock()

    async def get(self) -> auth_pb2.IssueTokenResponse:
        """A token that works, and whose it is.

        Raises:
            Unauthenticated: KEY_INVALID.
            Unavailable: Auth does not answer.
        """
        async with self._asking:
            now = self._clock()
            if self._token is None or now >= self._refresh_at:
                try:
                    self._token = await self._stub.IssueToken(auth_pb2.IssueTokenRequest(key=self._key))
                except grpc.aio.AioRpcError as error:
                    raise status.from_rpc_error(error) from None
                life_s = self._token.expire_time.ToNanoseconds() / 1e9 - now
                self._refresh_at = now + life_s * _REFRESH_AT
            return self._token

    def forget(self) -> None:
        """The token was refused: the next call exchanges the key again."""
        self._token = None


class _UnaryWithToken(grpc.aio.UnaryUnaryClientInterceptor):
    def __init__(self, source: TokenSource) -> None:
        self._source = source

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        call = await continuation(await _completed(client_call_details, self._source), request)
        try:
            code = await call.code()
        except asyncio.CancelledError:
            # Who gave up waits no more for this one, and the service is to know of it: gRPC sees ours alone.
            call.cancel()
            raise
        if code is grpc.StatusCode.UNAUTHENTICATED:
            # By the service's clock it has expired, or it was revoked: a new one tells. Nothing has been done yet.
            self._source.forget()
            call = await continuation(await _completed(client_call_details, self._source), request)
        return call


class _StreamWithToken(grpc.aio.UnaryStreamClientInterceptor):
    def __init__(self, source: TokenSource) -> None:
        self._source = source

    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(await _completed(client_call_details, self._source), request)


class _UploadWithToken(grpc.aio.StreamUnaryClientInterceptor):
    def __init__(self, source: TokenSource) -> None:
        self._source = source

    async def intercept_stream_unary(
        self, continuation: Any, client_call_details: Any, request_iterator: Any
    ) -> Any:
        return await continuation(await _completed(client_call_details, self._source), request_iterator)


class _TalkWithToken(grpc.aio.StreamStreamClientInterceptor):
    def __init__(self, source: TokenSource) -> None:
        self._source = source

    async def intercept_stream_stream(
        self, continuation: Any, client_call_details: Any, request_iterator: Any
    ) -> Any:
        return await continuation(await _completed(client_call_details, self._source), request_iterator)


def with_token(source: TokenSource) -> list[grpc.aio.ClientInterceptor]:
    """Interceptors that put a token on each call, and forget it when it is refused."""
    # Four, because grpc.aio takes an object for one kind of call only.
    kinds = (_UnaryWithToken, _StreamWithToken, _UploadWithToken, _TalkWithToken)
    return [kind(source) for kind in kinds]


async def _completed(details: Any, source: TokenSource) -> Any:
    """The details of a call, with a token and a deadline."""
    metadata = grpc.aio.Metadata(*(details.metadata or ()))
    metadata.add("authorization", f"Bearer {(await source.get()).access_token}")
    return details._replace(metadata=metadata, timeout=_timeout_s(details))


def _timeout_s(details: Any) -> float | None:
    """The call's deadline as the server is to hear of it: it is not told of the service config's."""
    if details.timeout is not None:
        return float(details.timeout)
    method = details.method
    return timeout_s(method.decode() if isinstance(method, bytes) else method)
