"""Workers: a job is done once, or ends with a reason, whatever happens on the way."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from facetmesh.fusion import worker
from facetmesh.fusion.faces import Pick, Selection
from facetmesh.fusion.operations import (
    BACKOFF_S,
    LEASE_S,
    MAX_FAULTS,
    MAX_INTERRUPTIONS,
    Caller,
    LeftFace,
    Operation,
    Stage,
)
from facetmesh.fusion.options import Options
from facetmesh.fusion.pipeline.rendering import Mask, Region, Rendering
from facetmesh.fusion.registry import Registry
from facetmesh.kit.errors import (
    Aborted,
    Cancelled,
    DeadlineExceeded,
    FacetmeshError,
    FailedPrecondition,
    InvalidArgument,
    ResourceExhausted,
    Unavailable,
)

from .fusion_jobs import LARGE, SMALL, TURNED, World, sha256

if TYPE_CHECKING:
    from facetmesh.fusion.faces import Face

    from .conftest import Clock


@pytest.fixture
def world(clock: Clock) -> World:
    """A service without work."""
    return World(clock)


async def reason(world: World, operation: Operation) -> str:
    ended = await world.worker.work(operation)
    assert ended.failure is not None
    return ended.failure.reason


async def test_a_job_is_done_and_accounted_for(world: World) -> None:
    operation = await world.create(caller=Caller("tenants/acme/keys/k1"), target_face_index=1)
    ended = await world.worker.work(operation)
    result = ended.result
    assert result is not None
    assert world.script.fused == [(LARGE, SMALL)]
    assert (result.source_face, result.target_face) == (LARGE.box, SMALL.box)
    image = world.blobs.blobs["acme", f"fusions/{operation.id}/1"]
    assert (result.sha256, result.size_bytes) == (sha256(image), len(image))
    (record,) = world.recorder.records
    assert result.receipt == record.receipt
    assert (record.tenant, record.subject, record.error) == ("tenants/acme", "tenants/acme/keys/k1", None)
    digests = [sha256(b"source"), sha256(b"target"), (await world.consent()).sha256]
    assert record.told["inputs"] == [bytes.fromhex(digest) for digest in digests]
    assert record.told["output"] == bytes.fromhex(result.sha256)
    assert {tenant for tenant, _, _ in world.script.found_in} == {"acme"}


async def test_only_the_result_stays(world: World) -> None:
    operation = await world.create()
    await world.worker.clear(await world.worker.work(operation))
    assert list(world.blobs.blobs) == [("acme", f"fusions/{operation.id}/1")]
    assert await world.registry.store.announced() == []


async def test_options_reach_the_pipeline_and_survive_the_store(world: World) -> None:
    options = Options(
        targets=Selection(Pick.NEAREST, near=(4, 4)), rendering=Rendering(Mask.REGIONS, (Region.EYES,), weight=0.5)
    )
    operation = await world.create(options=options)
    assert (await world.fusions.get(operation.ref)).job.options == options
    await world.worker.work(operation)
    assert world.script.fused == [(LARGE, SMALL)]
    assert world.script.renderings == [options.rendering]


async def test_all_faces_are_replaced_but_those_that_will_not_do(world: World) -> None:
    world.script.faces = [SMALL, TURNED, LARGE]
    ended = await world.worker.work(await world.create(options=Options(targets=Selection(Pick.ALL))))
    result = (await world.fusions.get(ended.ref)).result
    assert result is not None
    assert (result.target_face, result.more_target_faces) == (LARGE.box, (SMALL.box,))
    assert result.left_faces == (LeftFace(TURNED.box, "FACE_PROFILE"),)


async def test_a_source_that_is_to_show_one_face_shows_one(world: World) -> None:
    assert await reason(world, await world.create(options=Options(sole_source=True))) == "SEVERAL_FACES"
    world.script.faces = [SMALL]
    ended = await world.worker.work(await world.create(options=Options(sole_source=True)))
    assert ended.result is not None


@pytest.mark.parametrize(
    ("faces", "index", "expected"),
    [([], 0, "NO_FACE"), ([SMALL], 1, "FACE_INDEX_OUT_OF_RANGE"), ([SMALL, LARGE], 7, "FACE_INDEX_OUT_OF_RANGE")],
)
async def test_missing_faces_are_refused(world: World, faces: list[Face], index: int, expected: str) -> None:
    world.script.faces = faces
    operation = await world.create(source_face_index=index)
    assert await reason(world, operation) == expected
    failure = (await world.fusions.get(operation.ref)).failure
    assert failure is not None
    assert (failure.code, failure.metadata["image"]) == ("INVALID_ARGUMENT", "source")
    assert [record.error.reason for record in world.recorder.records if record.error] == [expected]


async def test_a_refusal_is_final_and_recorded(world: World) -> None:
    world.script.errors = [InvalidArgument("No.", reason="FACE_PROFILE")]
    assert await reason(world, await world.create()) == "FACE_PROFILE"
    assert len(world.recorder.records) == 1


async def test_what_detection_refuses_names_the_image(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def find(_: str, __: str, image: bytes) -> object:
        if image == b"target":
            raise FailedPrecondition("The model is not there.", reason="MODEL_NOT_FETCHED")
        return await type(world.script).find(world.script, _, __, image)

    monkeypatch.setattr(world.script, "find", find)
    operation = await world.create()
    assert await reason(world, operation) == "MODEL_NOT_FETCHED"
    failure = (await world.fusions.get(operation.ref)).failure
    assert failure is not None
    assert (failure.code, failure.metadata["image"]) == ("FAILED_PRECONDITION", "target")


async def test_an_outage_is_waited_for_and_leaves_no_trace_in_the_log(world: World, clock: Clock) -> None:
    world.script.errors = [Unavailable("gone", reason="RUNNER_DIED")]
    operation = await world.create()
    rested = await world.worker.work(operation)
    assert (rested.stage, rested.attempts) == (Stage.QUEUED, 1)
    assert world.recorder.records == []
    with pytest.raises(Aborted):
        await world.worker.work(operation)
    clock.now += BACKOFF_S[0]
    ended = await world.worker.work(operation)
    assert ended.result is not None
    assert ended.attempts == 2
    assert (await world.fusions.download(operation.ref))[1]


@pytest.mark.parametrize(("error", "tries"), [
    (Unavailable("gone", reason="RUNNER_DIED"), MAX_FAULTS),
    (DeadlineExceeded("late", reason="RUNNER_TIMEOUT"), MAX_FAULTS),
    (ResourceExhausted("too much", reason="RUNNER_MEMORY"), 3),
    (Unavailable("away", reason="STORE_UNAVAILABLE"), MAX_INTERRUPTIONS),
    (ResourceExhausted("busy", reason="QUEUE_FULL"), MAX_INTERRUPTIONS),
    (Cancelled("ending", reason="CANCELLED"), MAX_INTERRUPTIONS),
    (FailedPrecondition("not run for a while", reason="MODEL_QUARANTINED"), MAX_INTERRUPTIONS),
])  # fmt: skip
async def test_what_does_not_pass_ends_the_job(
    world: World, clock: Clock, error: FacetmeshError, tries: int
) -> None:
    world.script.errors = [error for _ in range(99)]
    operation = await world.create()
    for _ in range(tries):
        assert not operation.done
        operation = await world.worker.work(operation)
        clock.now += 60
    assert operation.failure is not None
    assert operation.failure.reason == error.reason
    assert len(world.script.errors) == 99 - tries
    assert len(world.recorder.records) == 1


async def test_our_deaths_and_outages_take_none_of_the_jobs_own_tries(world: World, clock: Clock) -> None:
    operation = await world.create()
    for _ in range(MAX_FAULTS + 1):
        await world.registry.change(operation.ref, lambda found: found.claim("dead", clock.now))
        clock.now += LEASE_S
        world.script.errors = [Unavailable("away", reason="UNAVAILABLE")]
        operation = await world.worker.work(operation)
        clock.now += 60
    for _ in range(MAX_FAULTS - 1):
        world.script.errors = [Unavailable("gone", reason="RUNNER_DIED")]
        operation = await world.worker.work(operation)
        clock.now += 60
    ended = await world.worker.work(operation)
    assert ended.result is not None
    assert (ended.faults, ended.attempts) == (MAX_FAULTS - 1, 2 * (MAX_FAULTS + 1) + MAX_FAULTS)


async def test_a_models_quarantine_is_waited_for_but_not_a_picture_that_ends_its_process(
    world: World, clock: Clock
) -> None:
    innocent, deadly = await world.create(), await world.create()
    died = [Unavailable("gone", reason="RUNNER_DIED") for _ in range(MAX_FAULTS)]
    locked_out = [FailedPrecondition("not run for a while", reason="MODEL_QUARANTINED") for _ in range(10)]
    world.script.errors = [*locked_out]
    for _ in locked_out:
        innocent = await world.worker.work(innocent)
        clock.now += BACKOFF_S[-1]
    assert (await world.worker.work(innocent)).result is not None
    world.script.errors = [*died[:3], *locked_out, *died[3:]]
    while not deadly.done:
        deadly = await world.worker.work(deadly)
        clock.now += BACKOFF_S[-1]
    assert deadly.failure is not None
    assert deadly.failure.reason == "RUNNER_DIED"
    assert world.script.errors == []


async def test_a_job_that_kills_its_workers_ends(world: World, clock: Clock) -> None:
    operation = await world.create()
    for _ in range(MAX_INTERRUPTIONS):  # workers that took it and were never seen again
        await world.registry.change(operation.ref, lambda found: found.claim("dead", clock.now))
        clock.now += LEASE_S
    assert await reason(world, operation) == "ATTEMPTS_EXHAUSTED"
    assert world.script.fused == []


async def test_our_own_faults_end_the_job_too(world: World, clock: Clock) -> None:
    world.script.errors = [ZeroDivisionError() for _ in range(9)]
    operation = await world.create()
    for _ in range(MAX_FAULTS):
        operation = await world.worker.work(operation)
        clock.now += 60
    assert operation.failure is not None
    assert operation.failure.code == "INTERNAL"


async def test_nothing_unaccounted_is_a_result(world: World, clock: Clock) -> None:
    world.recorder.refuses = [Unavailable("no log", reason="AUDIT_UNAVAILABLE")]
    operation = await world.create()
    assert not (await world.worker.work(operation)).done
    clock.now += 60
    ended = await world.worker.work(operation)
    assert ended.result is not None
    assert [record.receipt for record in world.recorder.records] == [ended.result.receipt]


@pytest.mark.parametrize(("here", "look_s"), [(True, 60.0), (False, worker.LOOK_S)])
async def test_cancelling_stops_the_work_before_the_next_sign_of_life(
    world: World, monkeypatch: pytest.MonkeyPatch, *, here: bool, look_s: float
) -> None:
    assert look_s == 60 or look_s < 1  # whoever cancels at another replica waits for that
    monkeypatch.setattr(worker, "LOOK_S", look_s)
    world.script.may_end.clear()
    operation = await world.create()
    working = asyncio.create_task(world.worker.work(operation))
    await world.script.began.wait()
    registry = world.registry if here else Registry(world.registry.store, world.clock)
    await registry.change(operation.ref, lambda found: found.cancel(world.clock()))
    with pytest.raises(Aborted) as lost:
        await asyncio.wait_for(working, 60)
    assert lost.value.reason == "LEASE_LOST"
    assert world.script.running == 0
    await world.worker.clear(await world.fusions.get(operation.ref))
    assert world.blobs.blobs == {}
    assert world.recorder.records == []


async def test_a_lease_is_not_written_while_it_is_fresh(
    world: World, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    change = world.registry.change

    async def counted(*arguments: Any) -> Operation:
        nonlocal looks
        looks += 1
        return await change(*arguments)

    monkeypatch.setattr(worker, "LOOK_S", 0.001)
    world.script.may_end.clear()
    operation = await world.create()
    working = asyncio.create_task(world.worker.work(operation))
    await world.script.began.wait()
    monkeypatch.setattr(world.registry, "change", counted)
    for later_s, written in ((worker.HEARTBEAT_S / 2, False), (worker.HEARTBEAT_S, True)):
        before = (await world.fusions.get(operation.ref)).until_s
        clock.now = before - LEASE_S + later_s
        now = looks
        await world.until(lambda now=now: looks > now + 2)
        assert ((await world.fusions.get(operation.ref)).until_s > before) is written
    world.script.may_end.set()
    await working


async def test_a_worker_that_lost_its_lease_changes_nothing(
    world: World, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It hung, another did the job; then it goes on."""
    monkeypatch.setattr("facetmesh.fusion.worker.LOOK_S", 1000)
    world.script.may_end.clear()
    operation = await world.create()
    slow = asyncio.create_task(world.worker.work(operation))
    await world.script.began.wait()
    for _ in range(200):  # its own last sign of life, at the new stage
        await asyncio.sleep(0)
    clock.now += LEASE_S
    taker = asyncio.create_task(world.another_worker("w2").work(operation))
    await world.until(lambda: world.script.running == 2)
    world.script.may_end.set()
    ended = await taker
    with pytest.raises(Aborted):
        await slow
    assert (await world.fusions.get(operation.ref)).result == ended.result
    assert ended.attempts == 2
    await world.worker.clear(ended)
    assert list(world.blobs.blobs) == [("acme", f"fusions/{operation.id}/2")]
    assert len(world.recorder.records) == 1


async def test_a_result_that_came_too_late_is_removed(
    world: World, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    operation = await world.create()
    put = world.blobs.put

    async def slow_disk(tenant: str, key: str, data: bytes) -> None:
        await put(tenant, key, data)
        if not key.startswith("fusions/"):
            return
        clock.now += LEASE_S
        await world.registry.change(operation.ref, lambda found: found.claim("w2", clock.now))

    monkeypatch.setattr(world.blobs, "put", slow_disk)
    with pytest.raises(Aborted):
        await world.worker.work(operation)
    assert sorted(key for _, key in world.blobs.blobs) == [
        f"inputs/{operation.id}/source", f"inputs/{operation.id}/target", f"progress/{operation.id}/1/fusing",
    ]  # fmt: skip


async def test_a_long_job_keeps_its_lease(world: World, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("facetmesh.fusion.worker.LOOK_S", 0.001)
    world.script.may_end.clear()
    operation = await world.create()
    working = asyncio.create_task(world.worker.work(operation))
    await world.script.began.wait()
    for _ in range(5):
        clock.now += LEASE_S - 1
        deadline = asyncio.get_running_loop().time() + 60
        while (await world.fusions.get(operation.ref)).until_s < clock.now + LEASE_S:
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.001)
    world.script.may_end.set()
    assert (await working).attempts == 1


async def test_inputs_that_are_not_the_ones_asked_for_are_refused(world: World, clock: Clock) -> None:
    operation = await world.create()
    world.blobs.blobs["acme", f"inputs/{operation.id}/source"] = b"another"
    for _ in range(MAX_FAULTS):
        operation = await world.worker.work(operation)
        clock.now += 60
    assert operation.failure is not None
    assert operation.failure.reason == "REQUEST_ID_REUSED"
