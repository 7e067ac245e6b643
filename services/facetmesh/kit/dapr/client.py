"""The connection with the sidecar."""

from __future__ import annotations

import asyncio

import aiohttp

from facetmesh.kit.dapr.calls import Client, our_errors
from facetmesh.kit.dapr.publisher import Publisher
from facetmesh.kit.dapr.secrets import Secrets
from facetmesh.kit.dapr.state import State
from facetmesh.kit.errors import Unavailable

_PROBE_TIMEOUT_S = 2.0
_PROBE_EVERY_S = 0.1


class DaprSidecar:
    """This service's sidecar. Nothing is sent before the first call.

    Args:
        grpc_port: DAPR_GRPC_PORT.
        http_port: DAPR_HTTP_PORT.
        api_token: DAPR_API_TOKEN; "" for a sidecar that asks for none.
        timeout_s: How long a call may take, in seconds.
        secret_bundle: The one secret that holds all of this service's, where the store has such.
    """

    def __init__(
        self, grpc_port: int, http_port: int, api_token: str = "", *, timeout_s: float = 5.0, secret_bundle: str = ""
    ) -> None:
        self._secret_bundle = secret_bundle
        self._health_url = f"http://127.0.0.1:{http_port}/v1.0/healthz/outbound"
        self._client = Client(grpc_port, api_token, timeout_s)
        self._probing: aiohttp.ClientSession | None = None

    async def wait_ready(self, timeout_s: float) -> None:
        """Waits until the sidecar serves, and takes our token.

        Raises:
            Unavailable: It does not within timeout_s seconds.
            FailedPrecondition: It refuses our token.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while not await self._takes_calls():  # noqa: ASYNC110 - another process tells nobody
                    await asyncio.sleep(_PROBE_EVERY_S)
        except TimeoutError:
            raise Unavailable("The sidecar is not there.", reason="SIDECAR_UNAVAILABLE", retry_after_s=1) from None

    async def healthy(self) -> None:
        """Returns when the sidecar serves.

        Raises:
            Unavailable: It does not.
        """
        if not await self._is_healthy():
            raise Unavailable("The sidecar does not answer.", reason="SIDECAR_UNAVAILABLE", retry_after_s=1)

    async def close(self) -> None:
        """Ends the connection."""
        await self._client.close()
        if self._probing is not None:
            await self._probing.close()

    def state(self, store: str = "state") -> State:
        """The state store of that name."""
        return State(self._client, store)

    def publisher(self, pubsub: str = "pubsub") -> Publisher:
        """The broker of that name."""
        return Publisher(self._client, pubsub)

    def secrets(self, store: str = "secrets") -> Secrets:
        """The secret store of that name."""
        return Secrets(self._client, store, self._secret_bundle)

    async def _takes_calls(self) -> bool:
        if not await self._is_healthy():
            return False
        try:
            with our_errors("The sidecar"):
                await self._client.get_metadata()
        except Unavailable:  # gRPC waits a moment before it connects again
            return False
        return True

    async def _is_healthy(self) -> bool:
        if self._probing is None:  # it wants a running loop; its connection stays, which is most of a probe's cost
            self._probing = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_PROBE_TIMEOUT_S))
        try:
            async with self._probing.get(self._health_url) as response:
                return response.ok
        except (aiohttp.ClientError, TimeoutError):
            return False
