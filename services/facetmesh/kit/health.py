"""A service's health, kept true to what it depends on."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio

from facetmesh.kit.errors import FacetmeshError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    import grpc
    from prometheus_client import Gauge

HEALTH_SERVICE = "grpc.health.v1.Health"
_LIVENESS = "liveness"
"""The name for «the process runs», whatever it depends on."""
_PROBE_EVERY_S = 1.0
_PROBE_TIMEOUT_S = 3.0
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_log = logging.getLogger(__name__)


class Health:
    """What the health service says of a server and its services: the same of all, but for the name `liveness`.

    Args:
        services: Full names of the server's services.
        probes: What must answer for it to serve, by name: probes that raise when it does not.
        ready: Is set to 1 or 0 for each probe's name.
    """

    def __init__(
        self, services: Sequence[str], probes: Mapping[str, Callable[[], Awaitable[object]]], ready: Gauge
    ) -> None:
        self._names = ("", *services)
        self._probes = probes
        self._ready = ready
        self._servicer = aio.HealthServicer()

    def add_to(self, server: grpc.aio.Server) -> None:
        """Adds the health service to a server."""
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    async def begin(self) -> None:
        """Says that the process runs, and does not serve yet."""
        await self._servicer.set(_LIVENESS, _SERVING)
        await self._set(_NOT_SERVING)

    async def keep_true(self) -> None:
        """Probes until it is cancelled, more often while something is missing."""
        was: dict[str, bool] = {}
        while True:
            problems = await asyncio.gather(*map(_problem, self._probes.values()))
            for name, problem in zip(self._probes, problems, strict=True):
                self._ready.labels(name).set(problem is None)
                if was.get(name) != (problem is None):
                    was[name] = problem is None
                    seen = {"dependency": name, "ready": problem is None, "problem": problem}
                    _log.info("dependency changed", extra=seen)
            serving = all(was.values())
            await self._set(_SERVING if serving else _NOT_SERVING)
            await asyncio.sleep(_PROBE_EVERY_S if serving else _PROBE_EVERY_S / 5)

    async def end(self) -> None:
        """Says that it does not serve any more, for good."""
        await self._servicer.enter_graceful_shutdown()

    async def _set(self, status: health_pb2.HealthCheckResponse.ServingStatus.ValueType) -> None:
        for name in self._names:
            await self._servicer.set(name, status)


async def _problem(probe: Callable[[], Awaitable[object]]) -> str | None:
    """What is wrong with what a dependency answers; None when nothing is."""
    try:
        async with asyncio.timeout(_PROBE_TIMEOUT_S):
            await probe()
    except TimeoutError:
        return "no answer in time"
    except FacetmeshError as error:
        return error.reason
    except Exception as error:  # noqa: BLE001 - whatever it is, the dependency does not answer
        return type(error).__name__
    return None
