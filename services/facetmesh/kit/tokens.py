"""Auth as the other services see it: its public keys, and tokens to act on behalf of a tenant."""

from __future__ import annotations

import asyncio
import time

import grpc

from facetmesh.auth.v1 import auth_pb2, auth_pb2_grpc
from facetmesh.kit import status, telemetry

_TIMEOUT_S = 5.0
_REFRESH_BEFORE_S = 60.0


class AuthClient:
    """A client of auth for one service.

    Args:
        address: host:port.
        service_key: The service's own API key.
    """

    def __init__(self, address: str, service_key: str) -> None:
        self._channel = grpc.aio.insecure_channel(address, interceptors=telemetry.client_interceptors())
        self._stub = auth_pb2_grpc.AuthServiceStub(self._channel)
        self._key = service_key
        self._tokens: dict[str, tuple[str, float]] = {}
        self._asking = asyncio.Lock()

    async def jwks(self) -> str:
        """The JSON text of auth's JWK Set.

        Raises:
            Unavailable: Auth does not answer.
        """
        try:
            return (await self._stub.GetJwks(auth_pb2.GetJwksRequest(), timeout=_TIMEOUT_S)).json
        except grpc.aio.AioRpcError as error:
            raise status.from_rpc_error(error) from error

    async def token(self, tenant: str) -> str:
        """A token with which this service acts on behalf of tenants/{tenant}, kept until shortly before it expires.

        Raises:
            Unavailable: Auth does not answer.
            PermissionDenied: There is no such tenant.
        """
        async with self._asking:
            token, expires = self._tokens.get(tenant, ("", 0.0))
            if time.time() < expires - _REFRESH_BEFORE_S:
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
