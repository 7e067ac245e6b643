"""Whose call is looked at first."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from facetmesh.auth.grants import Grant
from facetmesh.detection.v1 import detection_pb2, detection_pb2_grpc, model_pb2, model_pb2_grpc
from facetmesh.kit import audit, errors, turns
from facetmesh.kit.gate import Gate
from facetmesh.kit.places import Places
from facetmesh.kit.rpc import Guard
from facetmesh.kit.signing import EventSigner
from facetmesh.kit.telemetry import Metrics
from facetmesh.kit.turns import Turns
from facetmesh.kit.verifier import TokenVerifier

from .bus import Bus
from .conftest import AUDIENCE, ISSUER, new_issuer
from .limits_world import LimitsWorld

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

_PATIENCE_S = 60.0


def flooding(tenant: str) -> bool:
    """Whether a tenant's calls wait."""
    return tenant == "flood"


async def held(waiting: asyncio.Task[None]) -> bool:
    """Whether a call still waits after all that was ready has run."""
    for _ in range(10):
        await asyncio.sleep(0)
    return not waiting.done()


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """No call passes because the machine is slow."""
    monkeypatch.setattr(turns, "LONGEST_S", _PATIENCE_S)


async def test_who_has_a_queue_waits_until_another_tenants_only_call_is_answered() -> None:
    let = Turns(flooding)
    with let.answering("little"):
        waiting = asyncio.create_task(let.wait("flood"))
        assert await held(waiting)
        assert not await held(asyncio.create_task(let.wait("other")))  # it has no queue
    await asyncio.wait_for(waiting, _PATIENCE_S)


async def test_nobody_waits_for_a_tenants_second_call() -> None:
    let = Turns(flooding)
    first, second = let.answering("little"), let.answering("little")
    first.__enter__()
    second.__enter__()
    waiting = asyncio.create_task(let.wait("flood"))
    assert await held(waiting)
    first.__exit__(None, None, None)
    await asyncio.wait_for(waiting, _PATIENCE_S)
    assert not await held(asyncio.create_task(let.wait("flood")))
    second.__exit__(None, None, None)
    with let.answering("little"):  # it is the only one again
        assert await held(asyncio.create_task(let.wait("flood")))


async def test_nobody_waits_for_a_call_of_its_own() -> None:
    let = Turns(flooding)
    with let.answering("flood"):
        assert not await held(asyncio.create_task(let.wait("flood")))


async def test_a_call_that_takes_long_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "LONGEST_S", 0.01)
    let = Turns(flooding)
    with let.answering("little"):
        await asyncio.wait_for(let.wait("flood"), _PATIENCE_S)


async def test_without_a_queue_calls_go_as_they_come() -> None:
    let = Turns()
    with let.answering("little"):
        assert not await held(asyncio.create_task(let.wait("flood")))


async def refused(let: Turns, tenant: str) -> None:
    """Has a call of a tenant refused, and waits until nobody waits for it."""
    with suppress(errors.FailedPrecondition), let.answering(tenant):
        raise errors.FailedPrecondition("No.", reason="NO")
    await asyncio.wait_for(let.stand_aside("anybody"), _PATIENCE_S)


async def test_who_was_refused_waits_until_another_tenants_only_call_is_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    let = Turns()
    await refused(let, "flood")
    with let.answering("little"):
        waiting = asyncio.create_task(let.wait("flood"))
        assert await held(waiting)
        monkeypatch.setattr(turns, "REFUSED_S", 0.0)  # and when that was long ago, no longer
        assert not await held(asyncio.create_task(let.wait("flood")))
    await asyncio.wait_for(waiting, _PATIENCE_S)


async def test_nobody_waits_for_who_was_refused_until_it_is_answered() -> None:
    let = Turns(flooding)
    await refused(let, "little")
    for holds in (False, True):
        with let.answering("little"):
            waiting = asyncio.create_task(let.wait("flood"))
            assert await held(waiting) is holds
        await asyncio.wait_for(waiting, _PATIENCE_S)


class Work:
    """Work in the background."""

    def __init__(self) -> None:
        self.runs = asyncio.Event()
        self.runs.set()
        self.whom: list[str] = []

    def pause(self, tenant_id: str) -> None:
        """It was not paused before."""
        assert self.runs.is_set()
        self.runs.clear()
        self.whom.append(tenant_id)

    def resume(self) -> None:
        """It was paused before."""
        assert not self.runs.is_set()
        self.runs.set()


async def test_the_background_stands_still_while_a_tenants_only_call_is_answered() -> None:
    work, more = Work(), Work()
    let = Turns(background=(work, more))
    with let.answering("little"):
        assert not work.runs.is_set()
        assert not more.runs.is_set()
        with let.answering("little"), let.answering("other"):
            pass
        assert not work.runs.is_set()
    await asyncio.wait_for(work.runs.wait(), _PATIENCE_S)
    assert more.runs.is_set()
    assert work.whom == ["little"]


async def test_the_background_does_not_stand_still_for_a_call_that_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "LONGEST_S", 0.01)
    work = Work()
    with Turns(background=[work]).answering("little"):
        await asyncio.wait_for(work.runs.wait(), _PATIENCE_S)


async def test_the_background_does_not_stand_still_for_what_nobody_pays_for() -> None:
    work = Work()
    let = Turns(background=[work])
    with let.answering("little", infers=False):
        assert work.runs.is_set()
        assert await held(asyncio.create_task(let.stand_aside("upload")))


async def test_the_background_runs_for_as_long_as_it_stood_before_it_is_paused_anew() -> None:
    work = Work()
    let = Turns(background=[work])
    with let.answering("little"):
        await asyncio.sleep(0.1)
    await asyncio.wait_for(work.runs.wait(), _PATIENCE_S)
    resumed = time.monotonic()
    async with asyncio.timeout(_PATIENCE_S):
        while work.runs.is_set():
            with let.answering("little"):
                await asyncio.sleep(0)
    assert time.monotonic() - resumed >= 0.1


@asynccontextmanager
async def guarded(
    servicer: detection_pb2_grpc.DetectionServiceServicer,
    let: Turns,
    models: model_pb2_grpc.ModelServiceServicer | None = None,
) -> AsyncIterator[Callable[[str], Awaitable[Any]]]:
    """A detection behind a guard: what calls it for a tenant; the tenant "upload" sends a file instead."""
    world, bus, metrics = LimitsWorld(), Bus(), Metrics.create()
    issuer = new_issuer(world.clock)
    recorder = audit.Recorder("test", EventSigner("detection", bytes(32)), bus, metrics, clock=world.clock)
    verifier = TokenVerifier(issuer, issuer=ISSUER, audience=AUDIENCE, clock=world.clock)
    gate = Gate(region="local", clock=world.clock)
    guard = Guard(verifier, recorder, metrics, places=Places(64, 1 << 30, 1 << 20), gate=gate, turns=let)
    server = grpc.aio.server(interceptors=[guard])
    detection_pb2_grpc.add_DetectionServiceServicer_to_server(servicer, server)
    model_pb2_grpc.add_ModelServiceServicer_to_server(models or model_pb2_grpc.ModelServiceServicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub: Any = detection_pb2_grpc.DetectionServiceStub(channel)

        uploading: Any = model_pb2_grpc.ModelServiceStub(channel)

        async def detect(tenant: str) -> Any:
            token, _ = issuer.issue(Grant(f"tenants/{tenant}/keys/k1", tenant, ("caller", "tenant-admin")))
            model = f"tenants/{tenant}/models/faces"
            metadata = (("authorization", f"Bearer {token}"),)
            if tenant == "upload":
                spec = model_pb2.UploadSpec(model=model, sha256="0" * 64, size_bytes=1, licence="MIT")
                parts = [model_pb2.UploadModelRequest(spec=spec), model_pb2.UploadModelRequest(chunk=b"x")]
                return await uploading.UploadModel(iter(parts), metadata=metadata, timeout=_PATIENCE_S)
            request = detection_pb2.DetectRequest(model=model, image=b"x")
            return await stub.Detect(request, metadata=metadata, timeout=_PATIENCE_S)

        yield detect
    await server.stop(0)
    await recorder.close()


async def while_little_is_answered(
    detect: Callable[[str], Awaitable[Any]],
    begun: asyncio.Event,
    tenant: str,
    came: asyncio.Event,
    free: asyncio.Event,
) -> None:
    """Has a tenant call once little's call has begun, and another once that came; only then is little's freed."""
    little = asyncio.ensure_future(detect("little"))
    await asyncio.wait_for(begun.wait(), _PATIENCE_S)
    held_up = asyncio.ensure_future(detect(tenant))
    await asyncio.wait_for(came.wait(), _PATIENCE_S)
    await asyncio.wait_for(detect("other"), _PATIENCE_S)
    free.set()
    await asyncio.wait_for(asyncio.gather(little, held_up), _PATIENCE_S)


async def test_the_guard_reads_no_call_of_a_tenant_that_waits_its_turn() -> None:
    begun, asked, free = asyncio.Event(), asyncio.Event(), asyncio.Event()
    order: list[str] = []

    def queues(tenant: str) -> bool:
        if tenant == "flood":
            asked.set()
        return tenant == "flood"

    class Detection(detection_pb2_grpc.DetectionServiceServicer):
        async def Detect(self, request: Any, _: Any) -> detection_pb2.DetectResponse:
            tenant = request.model.split("/")[1]
            if tenant == "little":
                begun.set()
                await free.wait()
            order.append(tenant)
            return detection_pb2.DetectResponse()

    async with guarded(Detection(), Turns(queues)) as detect:
        await while_little_is_answered(detect, begun, "flood", asked, free)
    assert order == ["other", "little", "flood"]


async def test_the_guard_passes_on_no_more_of_a_file_meanwhile() -> None:
    begun, opened, free = asyncio.Event(), asyncio.Event(), asyncio.Event()
    order: list[str] = []

    class Detection(detection_pb2_grpc.DetectionServiceServicer):
        async def Detect(self, request: Any, _: Any) -> detection_pb2.DetectResponse:
            if "/little/" in request.model:
                begun.set()
                await free.wait()
                order.append("little")
            return detection_pb2.DetectResponse()

    class Models(model_pb2_grpc.ModelServiceServicer):
        async def UploadModel(self, requests: Any, _: Any) -> model_pb2.ModelVersion:
            async for request in requests:
                order.append(request.WhichOneof("part"))
                opened.set()
            return model_pb2.ModelVersion()

    async with guarded(Detection(), Turns(), Models()) as detect:
        await while_little_is_answered(detect, begun, "upload", opened, free)
    assert order == ["spec", "little", "chunk"]


async def test_large_messages_of_a_tenant_are_read_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    let = Turns()
    with let.answering("little"):
        waiting = asyncio.create_task(let.in_line("large", 1))
        assert await held(waiting)
    await asyncio.wait_for(waiting, _PATIENCE_S)
    monkeypatch.setattr(turns, "_LARGE_BYTES_PER_S", 0.01)
    first = asyncio.create_task(let.in_line("large", 1))
    await asyncio.wait_for(first, _PATIENCE_S)
    second = asyncio.create_task(let.in_line("large", 1))
    assert await held(second)
    assert not await held(asyncio.create_task(let.in_line("other", 1)))
    second.cancel()


async def test_what_a_refused_call_had_is_let_go_of() -> None:
    kept: list[weakref.ref[_Thing]] = []

    class Refusing(detection_pb2_grpc.DetectionServiceServicer):
        async def Detect(self, _: Any, __: Any) -> Any:
            thing = _Thing()
            kept.append(weakref.ref(thing))
            raise errors.NotFound("There is none.", reason="MODEL_NOT_FOUND")

    gc.disable()
    try:
        async with guarded(Refusing(), Turns()) as detect:
            with pytest.raises(grpc.aio.AioRpcError):
                await detect("acme")
            assert [one() for one in kept] == [None]
    finally:
        gc.enable()


class _Thing:
    pass
