"""Moderation: before the work and on what was made, by a model that the tenant cannot choose."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from facetmesh.fusion.faces import Seen
from facetmesh.fusion.moderation import Policy

from .fusion_jobs import MODEL, World

if TYPE_CHECKING:
    from .conftest import Clock

NAKED = Seen("FEMALE_BREAST_EXPOSED", 0.6)
RESULT = b"source into target for acme"


@pytest.fixture
def world(clock: Clock) -> World:
    """A service without work."""
    return World(clock)


async def reason(world: World) -> str:
    """Why a job ends without a result."""
    ended = await world.worker.work(await world.create())
    assert ended.failure is not None
    assert ended.result is None
    await world.worker.clear(ended)
    assert world.blobs.blobs == {}
    return ended.failure.reason


@pytest.mark.parametrize(("image", "which"), [(b"source", "source"), (b"target", "target"), (RESULT, "result")])
async def test_what_is_refused_leaves_nothing_but_a_record(world: World, image: bytes, which: str) -> None:
    world.script.seen[image] = [Seen("FACE_FEMALE", 0.9), NAKED]
    assert await reason(world) == "CONTENT_REFUSED"
    (record,) = world.recorder.records
    assert record.error is not None
    assert record.error.metadata == {"image": which, "labels": "FEMALE_BREAST_EXPOSED"}
    assert len(world.script.fused) == (which == "result")


async def test_of_a_large_result_a_smaller_copy_is_looked_at(world: World) -> None:
    world.script.copy = b"smaller"
    world.script.seen[b"smaller"] = [NAKED]
    assert await reason(world) == "CONTENT_REFUSED"
    assert RESULT not in {image for _, _, image in world.script.found_in}
    world.script.seen.clear()
    ended = await world.worker.work(await world.create())
    assert ended.result is not None
    assert (await world.fusions.download(ended.ref))[1].startswith(RESULT)


async def test_what_the_face_finder_saw_is_not_looked_for_again(world: World) -> None:
    await world.worker.work(await world.create())
    assert [image for _, _, image in world.script.found_in] == [b"source", b"target", RESULT]


async def test_another_model_than_the_face_finder_looks_at_all_three(world: World) -> None:
    world.script.moderates = "tenants/acme/models/guard"
    world.script.seen[b"target"] = [NAKED]
    assert await reason(world) == "CONTENT_REFUSED"
    asked = {(model, image) for _, model, image in world.script.found_in}
    assert {image for model, image in asked if model == "tenants/acme/models/guard"} == {b"source", b"target"}
    assert (MODEL, b"source") in asked


async def test_nothing_is_fused_where_nothing_moderates(world: World) -> None:
    world.script.moderates = ""
    assert await reason(world) == "MODERATION_MISSING"
    assert world.script.fused == []


@pytest.mark.parametrize("policy", [None, Policy(required=False)])
async def test_an_operator_may_do_without(world: World, policy: Policy | None) -> None:
    world.script.moderates, world.policy = "", policy
    assert (await world.worker.work(await world.create())).result is not None


async def test_where_it_is_off_nobody_looks(world: World) -> None:
    world.policy = None
    world.script.seen[b"source"] = [NAKED]
    assert (await world.worker.work(await world.create())).result is not None
    assert len(world.script.found_in) == 2


@pytest.mark.parametrize("policy", [Policy(min_confidence=0.7), Policy(labels=frozenset({"FACE_MALE"}))])
async def test_what_is_refused_is_the_operators_to_say(world: World, policy: Policy) -> None:
    world.policy = policy
    world.script.seen[b"source"] = [NAKED]
    assert (await world.worker.work(await world.create())).result is not None
    world.script.seen[b"source"] = [Seen("FACE_MALE", 0.9), Seen(NAKED.label, 0.8)]
    ended = await world.worker.work(await world.create())
    assert ended.failure is not None
    assert ended.failure.reason == "CONTENT_REFUSED"
