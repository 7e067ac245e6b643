"""What the kit makes of answers that only some of Dapr's components give."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest
from dapr.proto.runtime.v1 import dapr_pb2_grpc, secret_pb2, state_pb2

from facetmesh.kit.dapr import DaprSidecar, Outgoing
from facetmesh.kit.dapr.secrets import Secrets
from facetmesh.kit.errors import Aborted, FacetmeshError, FailedPrecondition, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Dapr(dapr_pb2_grpc.DaprServicer):
    """Answers as it is told."""

    def __init__(self) -> None:
        self.code = grpc.StatusCode.INTERNAL
        self.details = "failed"
        self.stored = b""

    async def SaveState(self, _request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        await context.abort(self.code, self.details)

    async def GetState(self, _request: Any, _context: object) -> state_pb2.GetStateResponse:
        return state_pb2.GetStateResponse(data=self.stored, etag="1" if self.stored else "")

    async def GetSecret(self, request: Any, _context: object) -> secret_pb2.GetSecretResponse:
        secrets = {"facetmesh-auth": {"a": "1", "b": "2"}, "a": {"a": "alone"}}
        return secret_pb2.GetSecretResponse(data=secrets[request.key])

    async def BulkPublishEvent(self, _request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        await context.abort(self.code, self.details)


@pytest.fixture
async def dapr() -> AsyncIterator[tuple[Dapr, DaprSidecar]]:
    servicer = Dapr()
    server = grpc.aio.server()
    dapr_pb2_grpc.add_DaprServicer_to_server(servicer, server)
    sidecar = DaprSidecar(server.add_insecure_port("127.0.0.1:0"), 1)
    await server.start()
    yield servicer, sidecar
    await sidecar.close()
    await server.stop(None)


async def test_a_first_write_that_redis_refused_was_lost_to_somebody(dapr: tuple[Dapr, DaprSidecar]) -> None:
    servicer, sidecar = dapr
    servicer.details = "failed saving state in state store state: failed to set key app||k"
    servicer.stored = b"somebody's"
    with pytest.raises(Aborted):
        await sidecar.state().put("k", b"ours", create=True)
    with pytest.raises(Unavailable):
        await sidecar.state().put("k", b"ours")


async def test_a_secret_is_one_of_its_own_or_one_of_a_bundle(dapr: tuple[Dapr, DaprSidecar]) -> None:
    _, sidecar = dapr
    assert await sidecar.secrets().get("a") == "alone"
    bundled = Secrets(sidecar.secrets()._client, "secrets", "facetmesh-auth")
    assert [await bundled.get(name) for name in "ab"] == ["1", "2"]
    with pytest.raises(FailedPrecondition) as missing:
        await bundled.get("c")
    assert missing.value.reason == "SECRET_MISSING"


async def test_a_first_write_that_failed_is_no_lost_race(dapr: tuple[Dapr, DaprSidecar]) -> None:
    _, sidecar = dapr
    with pytest.raises(Unavailable):
        await sidecar.state().put("k", b"ours", create=True)


@pytest.mark.parametrize(
    ("code", "details", "error"),
    [
        (grpc.StatusCode.ABORTED, "possible etag mismatch. error from state store", Aborted),
        (grpc.StatusCode.INTERNAL, "error while executing: possible etag mismatch. error from state store", Aborted),
        (grpc.StatusCode.INTERNAL, "disk", Unavailable),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "full", Unavailable),
        (grpc.StatusCode.UNAVAILABLE, "gone", Unavailable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "slow", Unavailable),
        (grpc.StatusCode.INVALID_ARGUMENT, "no such store", FailedPrecondition),
        (grpc.StatusCode.PERMISSION_DENIED, "not yours", FailedPrecondition),
        (grpc.StatusCode.UNAUTHENTICATED, "who?", FailedPrecondition),
    ],
)
async def test_a_status_becomes_one_of_our_errors(
    dapr: tuple[Dapr, DaprSidecar], code: grpc.StatusCode, details: str, error: type[FacetmeshError]
) -> None:
    servicer, sidecar = dapr
    servicer.code, servicer.details = code, details
    with pytest.raises(error) as caught:
        await sidecar.state().put("k", b"v")
    assert details not in caught.value.message  # that is for the log


async def test_a_publisher_that_was_refused_says_so(dapr: tuple[Dapr, DaprSidecar]) -> None:
    _, sidecar = dapr
    with pytest.raises(Unavailable):
        await sidecar.publisher().publish_many("t", [Outgoing("1", b"x", {})], type="t")


async def test_nothing_to_publish_is_nothing_to_do(dapr: tuple[Dapr, DaprSidecar]) -> None:
    _, sidecar = dapr
    assert await sidecar.publisher().publish_many("t", [], type="t") == []
