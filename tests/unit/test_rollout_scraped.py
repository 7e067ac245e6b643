"""What Prometheus and replicas' own metrics say is what was counted."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from tests.unit.test_rollout_counted import CANDIDATE, ROLLOUT, statistics

from facetmesh.detection.metrics import VersionMetrics
from facetmesh.detection.rollout.scraped import Endpoints, Prometheus, Scraped
from facetmesh.kit.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from facetmesh.detection.statistics import Statistics

__all__ = ["statistics"]


@pytest.fixture
async def url(statistics: Statistics) -> AsyncIterator[str]:
    """A replica's metrics at /metrics, and a Prometheus that has them of two replicas."""
    registry = CollectorRegistry()
    registry.register(VersionMetrics(statistics))

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry))

    async def query(request: web.Request) -> web.Response:
        assert f'model="faces", version=~"1|{CANDIDATE.number}"' in request.query["query"]
        samples = [
            one for family in text_string_to_metric_families(generate_latest(registry).decode())
            for one in family.samples
        ]
        result = [
            {"metric": {"__name__": one.name, **one.labels, "instance": replica}, "value": [0, str(one.value)]}
            for one in samples for replica in ("a:9400", "b:9400")
        ]  # fmt: skip
        return web.Response(text=json.dumps({"status": "success", "data": {"result": result}}))

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/api/v1/query", query)
    async with TestServer(app) as server:
        yield str(server.make_url("")).rstrip("/")


async def test_what_a_replica_says_is_what_it_counted(url: str, statistics: Statistics) -> None:
    async with aiohttp.ClientSession() as session:
        found = await Scraped(Endpoints(session, [f"{url}/metrics"])).read(ROLLOUT)
    assert list(found.values()) == list((await statistics.read(ROLLOUT)).values())


async def test_prometheus_has_each_replica(url: str, statistics: Statistics) -> None:
    async with aiohttp.ClientSession() as session:
        found = await Scraped(Prometheus(session, url)).read(ROLLOUT)
    (counted,) = (await statistics.read(ROLLOUT)).values()
    assert found == {"a:9400": counted, "b:9400": counted}


async def test_metrics_that_cannot_be_had_are_none(url: str) -> None:
    async with aiohttp.ClientSession() as session:
        for source in (Endpoints(session, [f"{url}/nothing"]), Prometheus(session, "http://127.0.0.1:9")):
            with pytest.raises(Unavailable) as away:
                await Scraped(source).read(ROLLOUT)
            assert away.value.reason == "METRICS_UNAVAILABLE"


@pytest.mark.parametrize(
    "answer",
    [
        "<html>Please log in.</html>", "[]", "{}", '{"data": {"result": [{"value": [0, "1"]}]}}',
        '{"data": {"result": [{"metric": 7, "value": [0, "1"]}]}}',
        *(
            '{"data": {"result": [{"metric": {"__name__": "facetmesh_version_calls_total", "tenant": "acme",'
            f'"model": "faces", "version": "1", "outcome": "ok", "instance": "a"}}, "value": [0, "{value}"]}}]}}}}'
            for value in ("NaN", "+Inf", "many")
        ),
    ],
)  # fmt: skip
async def test_what_is_no_metrics_is_as_good_as_none(answer: str) -> None:
    async def query(_: web.Request) -> web.Response:
        return web.Response(text=answer)

    app = web.Application()
    app.router.add_get("/api/v1/query", query)
    async with TestServer(app) as server, aiohttp.ClientSession() as session:
        url = str(server.make_url("")).rstrip("/")
        with pytest.raises(Unavailable) as away:
            await Scraped(Prometheus(session, url)).read(ROLLOUT)
    assert away.value.reason == "METRICS_UNAVAILABLE"
