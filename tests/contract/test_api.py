"""What holds for every method: tokens, what there is, what there is not, health."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import aiohttp
import grpc
import pytest
from dapr.proto import api_v1
from dapr.proto.runtime.v1 import dapr_pb2
from google.protobuf import message_factory

from facetmesh.kit.dapr import DaprSidecar, EventReceiver
from facetmesh.kit.errors import FailedPrecondition, Unavailable
from facetmesh.sidecar.servicer import METHODS

from .harness import DEADLINE_S, free_port

if TYPE_CHECKING:
    from .conftest import World

pytestmark = pytest.mark.asyncio(loop_scope="module")

SERVICE = dapr_pb2.DESCRIPTOR.services_by_name["Dapr"]
ALLOWED = {*METHODS, "SetMetadata"}
"""What components/redis/configuration.yaml allows: daprd allows it together with GetMetadata or not at all."""
UNARY = [
    method.name for method in SERVICE.methods if not method.client_streaming and not method.server_streaming
]


async def _call(world: World, method: str, metadata: tuple[tuple[str, str], ...]) -> grpc.aio.AioRpcError:
    descriptor = SERVICE.methods_by_name[method]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{world.one.grpc_port}") as channel:
        call: Any = channel.unary_unary(
            f"/{SERVICE.full_name}/{method}",
            request_serializer=message_factory.GetMessageClass(descriptor.input_type).SerializeToString,
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(message_factory.GetMessageClass(descriptor.input_type)(), metadata=metadata, timeout=60)
    return caught.value


@pytest.mark.parametrize("token", [None, "", "wrong", "api-token-of-two", "api-token-of-one "])
async def test_nobody_gets_in_without_the_token(world: World, token: str | None) -> None:
    """What daprd is not allowed to offer it denies before it looks at the token."""
    metadata = () if token is None else (("dapr-api-token", token),)
    for method in UNARY:
        error = await _call(world, method, metadata)
        hidden = world.provider.name == "daprd" and method not in ALLOWED
        expected = grpc.StatusCode.UNIMPLEMENTED if hidden else grpc.StatusCode.UNAUTHENTICATED
        assert error.code() is expected, method


async def test_what_is_not_there_is_unimplemented(world: World) -> None:
    """Nor is what daprd has and was not allowed by its configuration."""
    for method in UNARY:
        if method not in (ALLOWED if world.provider.name == "daprd" else METHODS):
            error = await _call(world, method, world.one.metadata)
            assert error.code() is grpc.StatusCode.UNIMPLEMENTED, method


async def test_the_sidecar_says_what_it_is(world: World) -> None:
    async with world.two.stub() as stub:
        answer = await stub.GetMetadata(api_v1.GetMetadataRequest(), metadata=world.two.metadata)
    assert answer.id == "two"
    assert {component.name for component in answer.registered_components} == {"state", "pubsub", "secrets"}
    assert {subscription.topic for subscription in answer.subscriptions} == {
        "single", "single.dead", "bulk", "bulk.dead", "raw", "everybody",
    }  # fmt: skip


async def test_health_needs_no_token(world: World) -> None:
    """While its app is away, daprd calls itself unwell, and serves all the same."""
    async with aiohttp.ClientSession() as session:
        for path, well in (("healthz/outbound", True), ("healthz", world.provider.name != "daprd")):
            async with session.get(f"http://127.0.0.1:{world.one.http_port}/v1.0/{path}") as response:
                assert response.status == (204 if well else 500)
        async with session.get(f"http://127.0.0.1:{world.one.http_port}/v1.0/state/state/k") as response:
            assert response.status in {401, 404}


async def test_the_kit_waits_for_a_sidecar_and_gives_up_in_time() -> None:
    sidecar = DaprSidecar(free_port(), free_port(), "token")
    began = time.monotonic()
    with pytest.raises(Unavailable):
        await sidecar.wait_ready(0.5)
    assert time.monotonic() - began < DEADLINE_S
    with pytest.raises(Unavailable):
        await sidecar.healthy()
    with pytest.raises(Unavailable):
        await sidecar.state().get("k")
    await sidecar.close()


async def test_the_kit_tells_a_wrong_token(world: World) -> None:
    sidecar = DaprSidecar(world.one.grpc_port, world.one.http_port, "wrong")
    with pytest.raises(FailedPrecondition):
        await sidecar.wait_ready(DEADLINE_S)
    await sidecar.close()


async def test_an_app_takes_events_from_its_sidecar_only() -> None:
    receiver = EventReceiver({}, app_api_token="right")
    port = await receiver.serve(0)
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            for service, method in (
                ("AppCallback", "OnTopicEvent"), ("AppCallback", "OnBulkTopicEvent"),
                ("AppCallbackAlpha", "OnBulkTopicEventAlpha1"),
            ):  # fmt: skip
                call: Any = channel.unary_unary(f"/dapr.proto.runtime.v1.{service}/{method}")
                for metadata in ((), (("dapr-api-token", "wrong"),)):
                    with pytest.raises(grpc.aio.AioRpcError) as caught:
                        await call(b"", metadata=metadata)
                    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED, method
                await call(b"", metadata=(("dapr-api-token", "right"),))
            # daprd has no token with it when it asks these, and is told nothing.
            for service, method in (
                ("AppCallback", "ListTopicSubscriptions"), ("AppCallback", "ListInputBindings"),
                ("AppCallbackHealthCheck", "HealthCheck"),
            ):  # fmt: skip
                call = channel.unary_unary(f"/dapr.proto.runtime.v1.{service}/{method}")
                assert await call(b"") == b""
    finally:
        await receiver.close()


async def test_an_app_without_a_token_takes_no_events() -> None:
    with pytest.raises(FailedPrecondition):
        await EventReceiver({}, app_api_token="").serve(0)


async def test_a_taken_port_is_told() -> None:
    first, second = EventReceiver({}, app_api_token="t"), EventReceiver({}, app_api_token="t")
    port = await first.serve(0)
    try:
        with pytest.raises(Unavailable) as caught:
            await second.serve(port)
        assert caught.value.reason == "PORT_TAKEN"
    finally:
        await first.close()
