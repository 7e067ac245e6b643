"""The state API, as daprd has it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

import grpc
import pytest
from dapr.proto import api_v1, common_v1
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from facetmesh.kit.dapr import DaprSidecar, Delete, Put
from facetmesh.kit.errors import Aborted, FailedPrecondition, InvalidArgument

from .harness import until

if TYPE_CHECKING:
    from .conftest import World

pytestmark = pytest.mark.asyncio(loop_scope="module")


def _reason(error: grpc.aio.AioRpcError) -> str:
    info = error_details_pb2.ErrorInfo()
    for detail in rpc_status.from_call(error).details:
        if detail.Unpack(info):
            assert info.domain == "dapr.io"
            return str(info.reason)
    return ""


async def test_what_was_put_is_there(one: DaprSidecar, name: str) -> None:
    value = bytes(range(256))
    await one.state().put(name, value)
    entry = await one.state().get(name)
    assert entry is not None
    assert entry.value == value
    assert entry.etag


async def test_a_key_without_a_value_has_no_entry(one: DaprSidecar, name: str) -> None:
    assert await one.state().get(name) is None


async def test_an_empty_value_is_a_value(one: DaprSidecar, name: str) -> None:
    await one.state().put(name, b"")
    entry = await one.state().get(name)
    assert entry is not None
    assert entry.value == b""


async def test_a_write_over_a_stale_version_is_refused(one: DaprSidecar, name: str) -> None:
    state = one.state()
    await state.put(name, b"1")
    first = await state.get(name)
    assert first is not None
    await state.put(name, b"2", etag=first.etag)
    with pytest.raises(Aborted):
        await state.put(name, b"3", etag=first.etag)
    entry = await state.get(name)
    assert entry is not None
    assert entry.value == b"2"


async def test_a_write_over_a_version_of_what_is_not_there_is_refused(
    world: World, one: DaprSidecar, name: str
) -> None:
    """Redis takes it: what somebody may still write must be marked as gone there, not deleted."""
    if world.provider.on_redis:
        await one.state().put(name, b"1", etag="1234")
        assert await one.state().get(name) is not None
        return
    with pytest.raises(Aborted):
        await one.state().put(name, b"1", etag="1234")


async def test_a_first_write_happens_once(one: DaprSidecar, name: str) -> None:
    outcomes = await asyncio.gather(
        *(one.state().put(name, str(number).encode(), create=True) for number in range(20)), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes if outcome is not None] == [Aborted] * 19
    entry = await one.state().get(name)
    assert entry is not None
    assert entry.value == str(outcomes.index(None)).encode()


async def test_of_concurrent_writes_over_one_version_one_wins(one: DaprSidecar, name: str) -> None:
    state = one.state()
    for _ in range(5):
        await state.put(name, b"0")
        entry = await state.get(name)
        assert entry is not None
        outcomes = await asyncio.gather(
            *(state.put(name, b"x", etag=entry.etag) for _ in range(10)), return_exceptions=True
        )
        assert outcomes.count(None) == 1


async def test_what_has_a_time_to_live_ends(one: DaprSidecar, name: str) -> None:
    state = one.state()
    for _ in range(10):  # it is there for a second only, and this machine may do other things for longer
        await state.put(name, b"short", ttl_s=1)
        if await state.get(name) is not None:
            break
    else:
        pytest.fail("it never was there")
    seen: list[bool] = []

    async def watch() -> None:
        while await state.get(name) is not None:
            await asyncio.sleep(0.05)
        seen.append(True)

    watching = asyncio.create_task(watch())
    await until(lambda: bool(seen), "the value ends")
    await watching
    # What has ended is as good as never written.
    await state.put(name, b"new", create=True)


async def test_a_write_without_a_time_to_live_lifts_it(one: DaprSidecar, name: str) -> None:
    state = one.state()
    await state.put(name, b"1", ttl_s=1)
    await state.put(name, b"2")
    await state.put(f"{name}-transacted", b"1", ttl_s=1)
    await state.transact([Put(f"{name}-transacted", b"2")])
    ends = time.monotonic() + 1.2
    await until(lambda: time.monotonic() > ends, "the time to live is over")
    assert set(await state.get_many([name, f"{name}-transacted"])) == {name, f"{name}-transacted"}


async def test_when_a_value_ends_is_told(world: World, name: str) -> None:
    """Not by Redis."""
    async with world.one.stub() as stub:
        for ttl in ("100", "-1"):
            item = common_v1.StateItem(key=name, value=b"1", metadata={"ttlInSeconds": ttl})
            await stub.SaveState(
                api_v1.SaveStateRequest(store_name="state", states=[item]), metadata=world.one.metadata
            )
            found = await stub.GetState(
                api_v1.GetStateRequest(store_name="state", key=name), metadata=world.one.metadata
            )
            assert ("ttlExpireTime" in found.metadata) == (ttl != "-1" and not world.provider.on_redis)


async def test_a_wrong_time_to_live_is_refused(world: World, name: str) -> None:
    async with world.one.stub() as stub:
        item = common_v1.StateItem(key=name, value=b"1", metadata={"ttlInSeconds": "soon"})
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.SaveState(
                api_v1.SaveStateRequest(store_name="state", states=[item]), metadata=world.one.metadata
            )
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "soon" in (caught.value.details() or "")


async def test_deleting_needs_the_right_version_if_one_is_given(world: World, one: DaprSidecar, name: str) -> None:
    """Redis does not mind where there is nothing to delete."""
    state = one.state()
    await state.put(name, b"1")
    with pytest.raises(Aborted):
        await state.delete(name, etag="1234")
    entry = await state.get(name)
    assert entry is not None
    await state.delete(name, etag=entry.etag)
    assert await state.get(name) is None
    await state.delete(name)
    with contextlib.nullcontext() if world.provider.on_redis else pytest.raises(Aborted):
        await state.delete(name, etag=entry.etag)


async def test_many_are_read_at_once(one: DaprSidecar, name: str) -> None:
    state = one.state()
    keys = [f"{name}-{number}" for number in range(10)]
    for key in keys[::2]:
        await state.put(key, key.encode())
    found = await state.get_many(keys)
    assert {key: entry.value for key, entry in found.items()} == {key: key.encode() for key in keys[::2]}


async def test_a_transaction_makes_all_changes(one: DaprSidecar, name: str) -> None:
    state = one.state()
    await state.put(f"{name}-gone", b"1")
    await state.transact([Put(f"{name}-a", b"a"), Put(f"{name}-b", b"b"), Delete(f"{name}-gone")])
    found = await state.get_many([f"{name}-a", f"{name}-b", f"{name}-gone"])
    assert {key[33:]: entry.value for key, entry in found.items()} == {"a": b"a", "b": b"b"}


async def test_a_transaction_with_a_stale_version_makes_none(world: World, one: DaprSidecar, name: str) -> None:
    """Redis says so too, but does not roll back."""
    state = one.state()
    await state.put(f"{name}-old", b"1")
    with pytest.raises(Aborted):
        await state.transact([Put(f"{name}-new", b"n"), Put(f"{name}-old", b"2", etag="1234")])
    found = await state.get_many([f"{name}-new", f"{name}-old"])
    left = {key[33:]: entry.value for key, entry in found.items()}
    assert left == ({"old": b"1", "new": b"n"} if world.provider.on_redis else {"old": b"1"})


async def test_in_a_list_of_writes_each_stands_alone(world: World, one: DaprSidecar, name: str) -> None:
    await one.state().put(f"{name}-old", b"1")
    items = [
        common_v1.StateItem(key=f"{name}-old", value=b"2", etag=common_v1.Etag(value="1234")),
        common_v1.StateItem(key=f"{name}-new", value=b"n"),
    ]
    async with world.one.stub() as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.SaveState(api_v1.SaveStateRequest(store_name="state", states=items), metadata=world.one.metadata)
        assert caught.value.code() is grpc.StatusCode.ABORTED
        assert _reason(caught.value) == "ERR_STATE_SAVE"
        found = await one.state().get_many([f"{name}-old", f"{name}-new"])
        assert {key[33:]: entry.value for key, entry in found.items()} == {"old": b"1", "new": b"n"}
        await stub.DeleteBulkState(
            api_v1.DeleteBulkStateRequest(store_name="state", states=[common_v1.StateItem(key=f"{name}-new")]),
            metadata=world.one.metadata,
        )
    assert await one.state().get(f"{name}-new") is None


async def test_apps_do_not_see_each_others_keys(one: DaprSidecar, two: DaprSidecar, name: str) -> None:
    await one.state().put(name, b"one's")
    assert await two.state().get(name) is None
    await two.state().put(name, b"two's", create=True)
    entry = await one.state().get(name)
    assert entry is not None
    assert entry.value == b"one's"


async def test_a_key_cannot_name_another_app(world: World, two: DaprSidecar, name: str) -> None:
    with pytest.raises(FailedPrecondition):
        await two.state().get(f"one||{name}")
    async with world.two.stub() as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.GetState(
                api_v1.GetStateRequest(store_name="state", key="one||x"), metadata=world.two.metadata
            )
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert _reason(caught.value) == "DAPR_STATE_ILLEGAL_KEY"


async def test_a_value_that_is_too_large_is_refused(world: World, one: DaprSidecar, name: str) -> None:
    with pytest.raises(InvalidArgument):
        await one.state().put(name, b"x" * (4 << 20))
    item = common_v1.StateItem(key=name, value=b"x" * (5 << 20))
    async with world.one.stub() as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.SaveState(
                api_v1.SaveStateRequest(store_name="state", states=[item]), metadata=world.one.metadata
            )
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_value_almost_too_large_comes_back(one: DaprSidecar, name: str) -> None:
    value = b"x" * 4_100_000
    await one.state().put(name, value)
    entry = await one.state().get(name)
    assert entry is not None
    assert entry.value == value


@pytest.mark.parametrize(
    ("app", "code", "reason"),
    [
        ("one", grpc.StatusCode.INVALID_ARGUMENT, "DAPR_STATE_NOT_FOUND"),
        ("stranger", grpc.StatusCode.FAILED_PRECONDITION, "DAPR_STATE_NOT_CONFIGURED"),
    ],
)
async def test_a_store_that_is_not_there(world: World, app: str, code: grpc.StatusCode, reason: str) -> None:
    caller = getattr(world, app)
    async with caller.stub() as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.GetState(api_v1.GetStateRequest(store_name="nowhere", key="k"), metadata=caller.metadata)
    assert caught.value.code() is code
    assert _reason(caught.value) == reason


async def test_a_store_that_is_not_for_the_app(world: World) -> None:
    sidecar = world.stranger.sidecar()
    with pytest.raises(FailedPrecondition):
        await sidecar.state().get("k")
    await sidecar.close()


async def test_an_empty_key_is_refused(world: World) -> None:
    async with world.one.stub() as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.SaveState(
                api_v1.SaveStateRequest(store_name="state", states=[common_v1.StateItem(value=b"1")]),
                metadata=world.one.metadata,
            )
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
