"""The secrets API, as daprd has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import pytest
from dapr.proto import api_v1

from facetmesh.kit.errors import FailedPrecondition

if TYPE_CHECKING:
    from facetmesh.kit.dapr import DaprSidecar

    from .conftest import World

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_each_app_has_its_own_secrets(one: DaprSidecar, two: DaprSidecar) -> None:
    assert await one.secrets().get("password") == "secret of one"
    assert await two.secrets().get("password") == "secret of two"


async def test_nested_secrets_have_joined_names(one: DaprSidecar) -> None:
    assert await one.secrets().get("nested:inner") == "deep"


async def test_a_missing_secret_is_told(world: World, one: DaprSidecar) -> None:
    with pytest.raises(FailedPrecondition) as missing:
        await one.secrets().get("no-such")
    assert missing.value.reason == "SECRET_MISSING"
    async with world.one.stub() as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.GetSecret(
                api_v1.GetSecretRequest(store_name="secrets", key="no-such"), metadata=world.one.metadata
            )
    assert caught.value.code() is grpc.StatusCode.INTERNAL


async def test_all_secrets_at_once(world: World) -> None:
    async with world.two.stub() as stub:
        found = await stub.GetBulkSecret(
            api_v1.GetBulkSecretRequest(store_name="secrets"), metadata=world.two.metadata
        )
    assert {name: dict(secret.secrets) for name, secret in found.data.items()} == {
        "password": {"password": "secret of two"},
        "nested:inner": {"nested:inner": "deep"},
    }


@pytest.mark.parametrize(
    ("app", "code"),
    [("one", grpc.StatusCode.INVALID_ARGUMENT), ("stranger", grpc.StatusCode.FAILED_PRECONDITION)],
)
async def test_a_store_that_is_not_there(world: World, app: str, code: grpc.StatusCode) -> None:
    caller = getattr(world, app)
    async with caller.stub() as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.GetSecret(api_v1.GetSecretRequest(store_name="nowhere", key="k"), metadata=caller.metadata)
    assert caught.value.code() is code
