"""KEDA's external scaler: how many workers the backlog asks for."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any

import grpc

from facetmesh.externalscaler import externalscaler_pb2 as keda
from facetmesh.externalscaler import externalscaler_pb2_grpc
from facetmesh.kit import status
from facetmesh.kit.errors import FacetmeshError, InvalidArgument

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from facetmesh.fusion.backlog import Backlog

METRIC = "jobs"
"""The one metric: jobs that have not ended."""
PER_REPLICA = "jobsPerReplica"
"""What a trigger's metadata has to say: how many jobs one replica is good for."""
ACTIVATION = "activationJobs"
"""What it may say: how many jobs are managed without any replica."""
_LARGEST_QUESTION = 1 << 16
_STREAMS = 16
"""KEDA holds one for each ScaledObject."""


class ScalerServicer(externalscaler_pb2_grpc.ExternalScalerServicer):
    """Serves externalscaler.ExternalScaler. Where the backlog is not known it says so: that is not an empty one.

    Args:
        backlog: What there is to do.
    """

    def __init__(self, backlog: Backlog) -> None:
        self._backlog = backlog

    async def IsActive(self, request: keda.ScaledObjectRef, context: Any) -> keda.IsActiveResponse:
        """Says whether there is more work than is managed without any replica."""
        async with _told(context):
            return keda.IsActiveResponse(result=self._backlog.load().jobs > _activation(request))

    async def StreamIsActive(
        self, request: keda.ScaledObjectRef, context: Any
    ) -> AsyncIterator[keda.IsActiveResponse]:
        """Says it now, and whenever it changes."""
        async with _told(context):
            async for busy in self._backlog.above(_activation(request)):
                yield keda.IsActiveResponse(result=busy)

    async def GetMetricSpec(self, request: keda.ScaledObjectRef, context: Any) -> keda.GetMetricSpecResponse:
        """Says how many jobs one replica is good for, as the trigger has it."""
        async with _told(context):
            size = _per_replica(request)
            spec = keda.MetricSpec(metricName=METRIC, targetSize=math.ceil(size), targetSizeFloat=size)
            return keda.GetMetricSpecResponse(metricSpecs=[spec])

    async def GetMetrics(self, request: keda.GetMetricsRequest, context: Any) -> keda.GetMetricsResponse:
        """Says how many jobs there are."""
        async with _told(context):
            if request.metricName != METRIC:
                raise InvalidArgument(f'There is no metric but "{METRIC}".', reason="METRIC_UNKNOWN")
            jobs = self._backlog.load().jobs
            value = keda.MetricValue(metricName=METRIC, metricValue=jobs, metricValueFloat=jobs)
            return keda.GetMetricsResponse(metricValues=[value])


@contextlib.asynccontextmanager
async def scaling(backlog: Backlog, listen: Callable[[grpc.aio.Server], int]) -> AsyncIterator[int]:
    """Answers KEDA until the context ends, whoever asks. Yields the port.

    Args:
        backlog: What there is to do.
        listen: Opens a port that only KEDA reaches, and returns it.
    """
    server = grpc.aio.server(
        maximum_concurrent_rpcs=_STREAMS,
        options=[("grpc.max_receive_message_length", _LARGEST_QUESTION), ("grpc.so_reuseport", 0)],
    )
    externalscaler_pb2_grpc.add_ExternalScalerServicer_to_server(ScalerServicer(backlog), server)
    port = listen(server)
    await server.start()
    try:
        yield port
    finally:
        await server.stop(0)


def _per_replica(request: keda.ScaledObjectRef) -> float:
    size = _number(request, PER_REPLICA, "")
    if size == 0:
        raise InvalidArgument(f"{PER_REPLICA} is 0.", reason="METADATA_INVALID")
    return size


def _activation(request: keda.ScaledObjectRef) -> float:
    return _number(request, ACTIVATION, "0")


def _number(request: keda.ScaledObjectRef, name: str, default: str) -> float:
    try:
        value = float(request.scalerMetadata.get(name, default))
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise InvalidArgument(f"{name} is no number from 0 on.", reason="METADATA_INVALID")
    return value


@contextlib.asynccontextmanager
async def _told(context: Any) -> AsyncIterator[None]:
    """Ends the call with what went wrong."""
    try:
        yield
    except FacetmeshError as error:
        await status.abort(context, error)
