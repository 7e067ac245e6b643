"""KEDA's questions over real gRPC, and what is known of the backlog."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from facetmesh.externalscaler import externalscaler_pb2 as keda
from facetmesh.externalscaler.externalscaler_pb2_grpc import ExternalScalerStub
from facetmesh.fusion.backlog import STALE_S, Backlog
from facetmesh.fusion.metrics import BacklogMetrics
from facetmesh.fusion.operations import Ref
from facetmesh.fusion.scaler_servicer import METRIC, scaling
from facetmesh.kit.errors import Unavailable
from facetmesh.kit.tls import TlsFiles, listen

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

DEADLINE_S = 60
FUSION = keda.ScaledObjectRef(name="fusion", namespace="facetmesh", scalerMetadata={"jobsPerReplica": "4"})


@dataclass
class World:
    """The scaler, what it tells of, and a client of it."""

    ask: Any
    now: float = 1_000_000.0
    backlog: Backlog = field(init=False)

    def __post_init__(self) -> None:
        """Nothing was seen yet."""
        self.backlog = Backlog(lambda: self.now)

    def see(self, *ages_s: float) -> None:
        """Has the dispatcher see jobs that were asked for so long ago."""
        self.backlog.see({Ref.new("acme", self.now - age) for age in ages_s})

    async def jobs(self) -> float:
        """What KEDA is told."""
        request = keda.GetMetricsRequest(scaledObjectRef=FUSION, metricName=METRIC)
        (value,) = (await self.ask.GetMetrics(request, timeout=DEADLINE_S)).metricValues
        assert value.metricValue == value.metricValueFloat
        return float(value.metricValueFloat)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """A scaler on a port of its own."""
    world = World(None)
    async with (
        scaling(world.backlog, lambda server: listen(server, "127.0.0.1", 0, TlsFiles())) as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        world.ask = ExternalScalerStub(channel)
        yield world


async def test_the_backlog_is_what_it_scales_by(world: World) -> None:
    world.see()
    assert not (await world.ask.IsActive(FUSION, timeout=DEADLINE_S)).result
    assert await world.jobs() == 0
    world.see(5, 60, 1)
    assert (await world.ask.IsActive(FUSION, timeout=DEADLINE_S)).result
    assert await world.jobs() == 3
    (spec,) = (await world.ask.GetMetricSpec(FUSION, timeout=DEADLINE_S)).metricSpecs
    assert (spec.metricName, spec.targetSize, spec.targetSizeFloat) == (METRIC, 4, 4.0)


async def test_what_is_not_known_is_not_none(world: World) -> None:
    async def code(method: str, request: Any) -> Any:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await getattr(world.ask, method)(request, timeout=DEADLINE_S)
        return refused.value.code()

    metric = keda.GetMetricsRequest(scaledObjectRef=FUSION, metricName=METRIC)
    assert await code("IsActive", FUSION) == grpc.StatusCode.UNAVAILABLE
    world.see(1)
    assert await world.jobs() == 1
    world.now += STALE_S + 1
    assert await code("GetMetrics", metric) == grpc.StatusCode.UNAVAILABLE
    with pytest.raises(Unavailable):
        world.backlog.load()


@pytest.mark.parametrize("said", ["", "many", "0", "-1", "nan", "inf"])
async def test_metadata_that_is_no_size_is_refused(world: World, said: str) -> None:
    world.see(1)
    request = keda.ScaledObjectRef(scalerMetadata={"jobsPerReplica": said} if said else {})
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await world.ask.GetMetricSpec(request, timeout=DEADLINE_S)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_what_the_warm_ones_manage_starts_no_other(world: World) -> None:
    def having(said: str) -> keda.ScaledObjectRef:
        return keda.ScaledObjectRef(scalerMetadata={"jobsPerReplica": "4", "activationJobs": said})

    world.see(1, 2)
    assert not (await world.ask.IsActive(having("2"), timeout=DEADLINE_S)).result
    world.see(1, 2, 3)
    assert (await world.ask.IsActive(having("2"), timeout=DEADLINE_S)).result
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await world.ask.IsActive(having("-1"), timeout=DEADLINE_S)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_another_metric_is_refused(world: World) -> None:
    world.see(1)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await world.ask.GetMetrics(keda.GetMetricsRequest(metricName="others"), timeout=DEADLINE_S)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_change_is_told_at_once(world: World) -> None:
    world.see()
    stream = world.ask.StreamIsActive(FUSION, timeout=DEADLINE_S)
    told = aiter(stream)
    async with asyncio.timeout(DEADLINE_S):
        assert not (await anext(told)).result
        world.see(1)
        assert (await anext(told)).result
        world.see(1, 2)
        world.see()
        assert not (await anext(told)).result
    stream.cancel()


def test_metrics_tell_of_the_oldest_and_nothing_of_what_is_not_known() -> None:
    world = World(None)
    metrics = BacklogMetrics(world.backlog)
    assert not [sample for metric in metrics.collect() for sample in metric.samples]
    world.see(5, 60)
    found = {sample.name: sample.value for metric in metrics.collect() for sample in metric.samples}
    assert found == {"facetmesh_jobs": 2, "facetmesh_jobs_oldest_seconds": pytest.approx(60, abs=0.01)}
