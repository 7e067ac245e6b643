"""Whether what listens at an address serves."""

from __future__ import annotations

import asyncio
import contextlib
import os

import aiohttp
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from facetmesh.kit.tls import TlsFiles, channel

_TIMEOUT_S = 2.0
_ASK_AGAIN_S = 0.1


class Health:
    """Asks a service for its health (grpc.health.v1).

    Args:
        address: host:port.
    """

    def __init__(self, address: str) -> None:
        # A fast reconnect: the default backs off for seconds while a service starts.
        self._channel = channel(
            address,
            TlsFiles.from_environment(os.environ),  # what the services are told
            [
                ("grpc.initial_reconnect_backoff_ms", 50),
                ("grpc.min_reconnect_backoff_ms", 50),
                ("grpc.max_reconnect_backoff_ms", 200),
                ("grpc.use_local_subchannel_pool", 1),
            ],
        )
        self._stub = health_pb2_grpc.HealthStub(self._channel)

    async def state(self) -> str:
        """SERVING, NOT_SERVING or UNREACHABLE."""
        try:
            answer = await self._stub.Check(health_pb2.HealthCheckRequest(), timeout=_TIMEOUT_S)
        except grpc.aio.AioRpcError:
            return "UNREACHABLE"
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))

    async def until_serving(self) -> None:
        """Returns once it says SERVING, however often it must be asked."""
        while True:
            try:
                async for answer in self._stub.Watch(health_pb2.HealthCheckRequest(), wait_for_ready=True):
                    if answer.status == health_pb2.HealthCheckResponse.SERVING:
                        return
            except grpc.aio.AioRpcError:
                await asyncio.sleep(_ASK_AGAIN_S)

    async def close(self) -> None:
        """Closes the connection."""
        await self._channel.close()


async def until_serving(address: str) -> None:
    """Returns once the service at host:port says that it serves."""
    health = Health(address)
    try:
        await health.until_serving()
    finally:
        await health.close()


async def until_ok(url: str) -> None:
    """Returns once an HTTP GET of url is answered with success."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S)) as session:
        while True:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async with session.get(url) as answer:
                    if answer.ok:
                        return
            await asyncio.sleep(_ASK_AGAIN_S)


async def until_open(*ports: int) -> None:
    """Returns once something accepts connections on each of these ports of the loopback."""
    for port in ports:
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(_ASK_AGAIN_S)
            else:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
                break
