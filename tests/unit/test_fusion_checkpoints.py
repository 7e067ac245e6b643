"""A job goes on after the last stage that was finished, whoever died meanwhile; what that takes goes with it."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from facetmesh.fusion.backends import Backend
from facetmesh.fusion.checkpoints import Checkpoints, Progress
from facetmesh.fusion.faces import Face, Pick, Selection
from facetmesh.fusion.fuser import Fused
from facetmesh.fusion.operations import BACKOFF_S, LEASE_S, Checkpoint, LeftFace, Operation, Stage
from facetmesh.fusion.options import Options
from facetmesh.kit.errors import Aborted, Unavailable

from .fusion_jobs import FACEMESH, LARGE, SMALL, TURNED, World

if TYPE_CHECKING:
    from .conftest import Clock

EYED = Face((1, 2, 3, 4), (5.5, 6), (7, 8), "FACE_MALE")


@pytest.fixture
def world(clock: Clock) -> World:
    """A service without work."""
    return World(clock)


def kept(world: World) -> list[str]:
    """The stages of which something is kept."""
    parts = [key.split("/", 2) for _, key in world.blobs.blobs]
    return sorted(stage for kind, _, stage in parts if kind == "progress")


async def killed_in_the_pipeline(world: World, clock: Clock, operation: Operation) -> None:
    """A worker dies while it fuses, and its lease ends."""
    world.script.began.clear()
    world.script.may_end.clear()
    working = asyncio.create_task(world.another_worker("dead").work(operation))
    await world.script.began.wait()
    working.cancel()
    await asyncio.wait([working])
    world.script.may_end.set()
    clock.now += LEASE_S


async def killed_while_marking(world: World, clock: Clock, operation: Operation, patch: pytest.MonkeyPatch) -> None:
    """A worker dies after it has fused, and its lease ends."""
    marking = asyncio.Event()

    async def mark(*_: Any) -> bytes:
        marking.set()
        await asyncio.Event().wait()
        raise AssertionError

    with patch.context() as patched:
        patched.setattr(world.script, "mark", mark)
        working = asyncio.create_task(world.another_worker("dead").work(operation))
        await marking.wait()
        working.cancel()
        await asyncio.wait([working])
    clock.now += LEASE_S


async def test_faces_are_not_sought_again(world: World, clock: Clock) -> None:
    operation = await world.create(target_face_index=1)
    await killed_in_the_pipeline(world, clock, operation)
    left = await world.fusions.get(operation.ref)
    assert left.checkpoint == Checkpoint(Stage.DETECTING, 1)
    assert kept(world) == ["1/detecting"]
    world.script.faces = []  # nobody would be found
    ended = await world.worker.work(operation)
    assert ended.result is not None
    assert (ended.result.source_face, ended.result.target_face) == (LARGE.box, SMALL.box)
    assert world.script.fused == [(LARGE, SMALL)]


async def test_what_is_fused_is_not_fused_again(world: World, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    world.script.faces = [SMALL, TURNED, LARGE]
    operation = await world.create(options=Options(targets=Selection(Pick.ALL)))
    await killed_while_marking(world, clock, operation, monkeypatch)
    assert (await world.fusions.get(operation.ref)).checkpoint == Checkpoint(Stage.FUSING, 1)
    fused = len(world.script.fused)
    ended = await world.worker.work(operation)
    assert len(world.script.fused) == fused
    result = ended.result
    assert result is not None
    assert (result.target_face, result.more_target_faces) == (LARGE.box, (SMALL.box,))
    assert result.left_faces == (LeftFace(TURNED.box, "FACE_PROFILE"),)
    assert result.models == (FACEMESH,)
    _, image = await world.fusions.download(operation.ref)
    assert image == b" ".join([b"source into target for acme marked", result.receipt.encode()])
    (record,) = world.recorder.records
    assert record.told["model_version"] == "tenants/acme/models/faces/versions/1"


async def test_a_failure_that_may_pass_costs_its_own_stage_only(world: World, clock: Clock) -> None:
    world.script.errors = [Unavailable("gone", reason="RUNNER_DIED")]
    world.recorder.refuses = [Unavailable("no log", reason="AUDIT_UNAVAILABLE")]
    operation = await world.create()
    for rest in BACKOFF_S[:2]:
        operation = await world.worker.work(operation)
        assert operation.stage is Stage.QUEUED
        clock.now += rest
    sought = len(world.script.found_in)
    ended = await world.worker.work(operation)
    assert ended.result is not None
    assert ended.attempts == 3
    assert len(world.script.fused) == 1
    assert len(world.script.found_in) == sought


async def test_an_attempt_that_goes_on_says_so(world: World, clock: Clock) -> None:
    operation = await world.create()
    await killed_in_the_pipeline(world, clock, operation)
    taken = (await world.fusions.get(operation.ref)).claim("w2", clock.now)
    assert (taken.stage, taken.percent) == (Stage.FUSING, 40)


async def test_consent_is_looked_at_by_each_attempt(world: World, clock: Clock) -> None:
    operation = await world.create()
    await killed_in_the_pipeline(world, clock, operation)
    await world.consents.revoke("acme", (await world.consent()).id)
    ended = await world.worker.work(operation)
    assert ended.failure is not None
    assert ended.failure.reason == "CONSENT_REVOKED"
    assert world.script.fused == []


@pytest.mark.parametrize("ending", ["made", "refused", "cancelled"])
async def test_nothing_is_kept_of_a_job_that_has_ended(world: World, clock: Clock, ending: str) -> None:
    operation = await world.create()
    await killed_in_the_pipeline(world, clock, operation)
    if ending == "refused":
        world.script.errors = [Unavailable("gone", reason="RUNNER_DIED") for _ in range(9)]
    if ending == "cancelled":
        await world.fusions.cancel(operation.ref)
    while not (operation := await world.fusions.get(operation.ref)).done:
        await world.worker.work(operation)
        clock.now += 60
    assert operation.checkpoint is None
    await world.worker.clear(operation)
    assert [key.partition("/")[0] for _, key in world.blobs.blobs] == (["fusions"] if ending == "made" else [])


@pytest.mark.parametrize("damage", ["gone", "cut", "another version's", "no JSON"])
async def test_what_cannot_be_read_is_made_again(world: World, clock: Clock, damage: str) -> None:
    operation = await world.create()
    await killed_in_the_pipeline(world, clock, operation)
    place = ("acme", f"progress/{operation.id}/1/detecting")
    other = json.dumps({"source": {}}).encode()
    damaged = {"cut": b"\0", "another version's": len(other).to_bytes(4, "big") + other, "no JSON": b"\0\0\0\2{]"}
    if damage == "gone":
        del world.blobs.blobs[place]
    else:
        world.blobs.blobs[place] = damaged[damage]
    ended = await world.worker.work(operation)
    assert ended.result is not None
    assert ended.attempts == 2


async def test_who_lost_the_job_leaves_only_what_the_next_one_goes_on_from(world: World, clock: Clock) -> None:
    operation = await world.create()
    await killed_in_the_pipeline(world, clock, operation)
    lost = await world.fusions.get(operation.ref)  # it was not dead after all
    await world.registry.change(operation.ref, lambda found: found.claim("w2", clock.now))
    checkpoints = Checkpoints(world.registry, world.images)
    late = Progress(LARGE, (SMALL,), "v", Fused(b"late", (None,)))
    with pytest.raises(Aborted):
        await checkpoints.keep(lost, late)
    assert kept(world) == ["1/detecting", "1/fusing"]
    await checkpoints.discard(lost)
    assert kept(world) == ["1/detecting"]
    assert (await world.fusions.get(operation.ref)).checkpoint == Checkpoint(Stage.DETECTING, 1)


@pytest.mark.parametrize("progress", [
    Progress(EYED, (SMALL, EYED), "tenants/acme/models/faces/versions/1"),
    Progress(EYED, (SMALL,), "v", Fused(b"\x89PNG\r\n\x1a\n\0\xff", (None,))),
    Progress(EYED, (SMALL, LARGE), "v", Fused(b"{}", (None, "FACE_PROFILE"), Backend.INSIGHTFACE, (FACEMESH,))),
])
def test_what_is_kept_is_what_was_got_done(progress: Progress) -> None:
    assert Progress.load(progress.dump()) == progress


async def test_records_of_before_begin_anew_with_nothing_held_against_them(world: World) -> None:
    operation = await world.create()
    key = f"tenants/acme/operations/{operation.id}"
    fields = json.loads(world.state.entries[key].value)
    del fields["checkpoint"], fields["faults"]
    await world.state.put(key, json.dumps(fields).encode())
    found = await world.fusions.get(operation.ref)
    assert (found.checkpoint, found.faults) == (None, 0)
