"""Our routes, in the real Istio: an Envoy that istiod configures splits real calls between the subsets."""

from __future__ import annotations

import asyncio
import json
import math
import time
import urllib.request
from collections import Counter
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from tests.contract.harness import free_port

from .conftest import K8S, token
from .gateway import put_behind

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from .controlplane import ControlPlane
    from .gateway import Gateway

pytestmark = pytest.mark.full

DETECT = "/facetmesh.detection.v1.DetectionService/Detect"
CALLS = 1000
_ROUTE_S = 300
_CALL_S = 60


class Subset:
    """A gRPC server that answers every call with what it was sent, and says who it is."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.port = free_port()
        self.metadata: list[dict[str, str | bytes]] = []
        self._server = grpc.aio.server()
        self._server.add_generic_rpc_handlers((self,))
        self._server.add_insecure_port(f"127.0.0.1:{self.port}")

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        async def answer(_request: bytes, _context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
            self.metadata.append(dict(details.invocation_metadata or ()))
            return self.name.encode()

        return grpc.unary_unary_rpc_method_handler(answer)

    async def start(self) -> None:
        await self._server.start()

    async def stop(self) -> None:
        await self._server.stop(0)


@pytest.fixture
async def subsets(cluster: ControlPlane) -> AsyncIterator[dict[str, Subset]]:
    """Both subsets, in place of the Service that pods would stand behind."""
    subsets = {name: Subset(name) for name in ("v1", "v2")}
    for subset in subsets.values():
        await subset.start()
    put_behind(cluster, {name: one.port for name, one in subsets.items()})
    yield subsets
    for subset in subsets.values():
        await subset.stop()


@pytest.fixture
async def channel(subsets: dict[str, Subset], gateway: Gateway) -> AsyncIterator[grpc.aio.Channel]:
    """To the gateway, once there is somebody behind it."""
    assert subsets
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}") as channel:
        yield channel


async def call(channel: grpc.aio.Channel, **metadata: str) -> str:
    """The subset that answered."""
    sent = [(name.replace("_", "-"), value) for name, value in metadata.items()]
    answer = await channel.unary_unary(DETECT)(b"", metadata=sent, timeout=_CALL_S)
    return bytes(answer).decode()


async def routed(channel: grpc.aio.Channel, wanted: str) -> None:
    """Waits until istiod's word has reached the gateway: calls for testers arrive."""
    deadline = time.monotonic() + _ROUTE_S
    while True:
        try:
            assert await call(channel, x_facetmesh_subset=wanted) == wanted
        except grpc.aio.AioRpcError as error:
            assert time.monotonic() < deadline, error  # noqa: PT017 - not yet
            await asyncio.sleep(0.2)
        else:
            return


def reweigh(cluster: ControlPlane, canary: int) -> None:
    """Gives the canary so many of 100 calls."""
    route = cluster.get("virtualservice", "detection-ingress", "--namespace=facetmesh")["spec"]["http"]
    number = next(n for n, one in enumerate(route) if one["name"] == "split")
    patch = [
        {"op": "replace", "path": f"/spec/http/{number}/route/{n}/weight", "value": weight}
        for n, weight in enumerate((100 - canary, canary))
    ]
    cluster.kubectl(
        "patch", "virtualservice", "detection-ingress", "--namespace=facetmesh", "--type=json",
        f"--patch={json.dumps(patch)}",
    )


def weights(gateway: Gateway, named: str = "split") -> list[int]:
    """What the gateway's Envoy has been told of a route, so far; nothing of one that it does not have."""
    url = f"http://127.0.0.1:{gateway.admin}/config_dump?resource=dynamic_route_configs"
    with urllib.request.urlopen(url, timeout=10) as answer:
        configs = json.load(answer)["configs"]
    hosts = [host for config in configs for host in config["route_config"].get("virtual_hosts", ())]
    found = [route["route"] for host in hosts for route in host["routes"] if route.get("name") == named]
    if not found:
        return []
    split = found[0]
    clusters = split.get("weighted_clusters", {"clusters": [{"name": split.get("cluster"), "weight": 100}]})["clusters"]
    by_subset = {one["name"].split("|")[2]: one.get("weight", 0) for one in clusters}
    return [by_subset.get(name, 0) for name in ("v1", "v2")]


def deviations(hits: int, calls: int, percent: int) -> float:
    """How many standard deviations hits are from what the weight asks."""
    share = percent / 100
    deviation = math.sqrt(calls * share * (1 - share))
    return abs(hits - calls * share) / deviation if deviation else abs(hits - calls * share)


async def test_weights_split_calls_and_none_is_lost_while_they_change(
    cluster: ControlPlane, gateway: Gateway, channel: grpc.aio.Channel
) -> None:
    await routed(channel, "v1")
    await routed(channel, "v2")
    assert Counter([await call(channel) for _ in range(50)]) == {"v1": 50}
    try:
        for canary in (10, 50, 100, 0):
            changing = asyncio.create_task(asyncio.to_thread(reweigh, cluster, canary))
            deadline = time.monotonic() + _ROUTE_S
            while not (changing.done() and weights(gateway) == [100 - canary, canary]):
                await call(channel)  # raises if it is lost
                assert time.monotonic() < deadline, weights(gateway)
            await changing
            hits = Counter([await call(channel) for _ in range(CALLS)])["v2"]
            # By chance it is further off once in 16,000 times.
            assert deviations(hits, CALLS, canary) <= 4, f"{canary} % asked, {hits} of {CALLS} came"
    finally:
        await asyncio.to_thread(reweigh, cluster, 0)
    # Testers see what they ask for, whatever the weights.
    assert Counter([await call(channel, x_facetmesh_subset="v2") for _ in range(50)]) == {"v2": 50}


async def test_a_tenant_is_told_by_its_token_and_by_nothing_else(
    subsets: dict[str, Subset], channel: grpc.aio.Channel
) -> None:
    await routed(channel, "v1")
    await call(channel, authorization=f"Bearer {token('acme')}", x_facetmesh_tenant="tenants/other")
    assert subsets["v1"].metadata[-1]["x-facetmesh-tenant"] == "tenants/acme"
    await call(channel, x_facetmesh_tenant="tenants/other")
    assert "x-facetmesh-tenant" not in subsets["v1"].metadata[-1]
    forged = token("acme", generate_private_key(SECP256R1()))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call(channel, authorization=f"Bearer {forged}")
    assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED


async def test_faults_come_to_those_who_ask_for_them(cluster: ControlPlane, channel: grpc.aio.Channel) -> None:
    def route(overlay: str) -> Any:
        rendered = yaml.safe_load_all(cluster.kubectl("kustomize", str(K8S / "overlays" / overlay)).stdout)
        wanted = ("VirtualService", "detection-ingress")
        return next(one for one in rendered if (one["kind"], one["metadata"]["name"]) == wanted)

    async def outcomes(**metadata: str) -> Counter[grpc.StatusCode]:
        """What became of many calls at once."""
        asked = (channel.unary_unary(DETECT)(b"", metadata=list(metadata.items()), timeout=60) for _ in range(100))
        return Counter(await asyncio.gather(*(one.code() for one in asked)))

    await routed(channel, "v1")
    cluster.apply(route("rehearsal"))
    try:
        deadline = time.monotonic() + _ROUTE_S
        # One in ten: none of a hundred once in 40,000 times, and then the next hundred are asked.
        while not (found := await outcomes(**{"x-facetmesh-rehearsal": "faults"}))[grpc.StatusCode.UNAVAILABLE]:
            assert time.monotonic() < deadline, found
        assert found.keys() == {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}
        assert await outcomes() == {grpc.StatusCode.OK: 100}
    finally:
        cluster.apply(route("dev"))
