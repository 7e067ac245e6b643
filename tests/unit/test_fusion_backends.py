"""What fuses, for whom: what is asked for, what the operator offers, and what the tenant's licence policy allows."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest

from facetmesh.fusion.backends import Backend, Backends, Offer
from facetmesh.fusion.faces import Guess, Pick, Selection, Sex
from facetmesh.fusion.matcher import Matcher
from facetmesh.fusion.operations import Stage
from facetmesh.fusion.options import Options
from facetmesh.fusion.weights import DETECTOR, MATCHING, SWAPPING, CatalogWeights, InsightFaceWeights
from facetmesh.kit import catalog
from facetmesh.kit.errors import FailedPrecondition, Internal, InvalidArgument, PermissionDenied
from facetmesh.kit.profiles import Profile
from facetmesh.runners.tasks import Reply

from .fusion_jobs import FACEMESH, LARGE, RESEARCH, SMALL, TURNED, World, sha256

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Clock

THEIRS = Options(backend=Backend.INSIGHTFACE)
REFERRING = Options(targets=Selection(Pick.REFERENCE))
GUESSING = Options(targets=Selection(max_age=60))
ALLOWED = Profile(plan="free", licence_classes=frozenset({"permissive", "non-commercial"}))


@pytest.fixture
def world(clock: Clock) -> World:
    """A service without work."""
    return World(clock)


async def test_the_operators_choice_fuses_unless_a_request_chooses(world: World) -> None:
    ended = await world.worker.work(await world.create())
    assert (len(world.script.fused), len(world.other.fused)) == (1, 0)
    assert ended.result is not None
    assert (ended.result.backend, ended.result.models) == (Backend.MESH, (FACEMESH,))
    world.profile = ALLOWED
    ended = await world.worker.work(await world.create(options=THEIRS))
    assert (len(world.script.fused), len(world.other.fused)) == (1, 1)
    stored = (await world.fusions.get(ended.ref)).result
    assert stored is not None
    assert stored.backend is Backend.INSIGHTFACE
    world.backends._default = Backend.INSIGHTFACE
    await world.worker.work(await world.create())
    assert len(world.other.fused) == 2


@pytest.mark.parametrize("options", [THEIRS, REFERRING, GUESSING])
async def test_a_licence_that_the_policy_does_not_allow_is_refused_at_once(world: World, options: Options) -> None:
    with pytest.raises(PermissionDenied) as refusal:
        await world.create(options=options)
    assert (refusal.value.reason, refusal.value.metadata) == ("LICENCE_NOT_ALLOWED", {"licence": RESEARCH})
    assert world.blobs.blobs == {}
    for profile in (ALLOWED, replace(world.profile, licences=frozenset({RESEARCH}))):
        world.profile = profile
        await world.create(options=options)


async def test_a_licence_that_is_withdrawn_meanwhile_ends_the_job(world: World) -> None:
    world.profile = ALLOWED
    operation = await world.create(options=THEIRS)
    world.profile = Profile(plan="free")
    ended = await world.worker.work(operation)
    assert ended.failure is not None
    assert (ended.failure.reason, world.other.fused) == ("LICENCE_NOT_ALLOWED", [])
    assert [record.error.reason for record in world.recorder.records if record.error] == ["LICENCE_NOT_ALLOWED"]


async def test_of_a_tenant_of_whom_nothing_is_known_yet_nothing_is_refused_for_good(world: World, clock: Clock) -> None:
    world.profile = ALLOWED
    operation = await world.create(options=THEIRS)
    world.profile = Profile()  # as after a start, while auth is away
    waiting = await world.worker.work(operation)
    assert (waiting.stage, waiting.failure) == (Stage.QUEUED, None)
    world.profile = ALLOWED
    clock.now += 60
    assert (await world.worker.work(waiting)).result is not None


async def test_the_permissive_backend_asks_nothing_of_a_policy(world: World) -> None:
    world.profile = replace(world.profile, licence_classes=frozenset({"copyleft"}))
    assert (await world.worker.work(await world.create())).result is not None


@pytest.mark.parametrize("options", [THEIRS, REFERRING, GUESSING])
async def test_what_the_operator_does_not_offer_is_refused(world: World, options: Options) -> None:
    world.fusions._backends = Backends(
        {Backend.MESH: Offer(world.script, "Apache-2.0")}, None, default=Backend.MESH, profile=world._profile
    )
    with pytest.raises(FailedPrecondition) as refusal:
        await world.create(options=options)
    assert refusal.value.reason == "BACKEND_MISSING"


async def test_the_face_that_resembles_the_reference_is_replaced(world: World) -> None:
    world.profile = ALLOWED
    world.script.similarities = {SMALL: 0.7, LARGE: 0.5}
    operation = await world.create(options=REFERRING, reference=b"who")
    assert world.blobs.blobs["acme", f"inputs/{operation.id}/reference"] == b"who"
    ended = await world.worker.work(operation)
    assert world.script.compared == [(b"who", b"target")]
    assert world.script.fused == [(LARGE, SMALL)]
    (record,) = world.recorder.records
    assert bytes.fromhex(sha256(b"who")) in record.told["inputs"]
    await world.worker.clear(ended)
    assert list(world.blobs.blobs) == [("acme", f"fusions/{operation.id}/1")]


@pytest.mark.parametrize("similarities", [{}, {SMALL: 0.39}, {SMALL: -1.0, LARGE: 0.1}])
async def test_nobody_is_replaced_who_does_not_resemble_it(world: World, similarities: dict[object, float]) -> None:
    world.profile = ALLOWED
    world.script.similarities = similarities  # type: ignore[assignment] # faces, all of them
    ended = await world.worker.work(await world.create(options=REFERRING, reference=b"who"))
    assert ended.failure is not None
    assert (ended.failure.reason, ended.failure.metadata["image"]) == ("FACE_NOT_MATCHED", "target")
    assert isinstance(ended.failure.error(), InvalidArgument)
    assert world.script.fused == []


async def test_a_bar_of_ones_own_is_kept(world: World) -> None:
    world.profile = ALLOWED
    world.script.similarities = {SMALL: 0.7, LARGE: 0.5}
    options = Options(targets=Selection(Pick.REFERENCE, min_similarity=0.8))
    ended = await world.worker.work(await world.create(options=options, reference=b"who"))
    assert ended.failure is not None
    assert ended.failure.reason == "FACE_NOT_MATCHED"


@pytest.mark.parametrize(
    ("chosen", "replaced"),
    [
        ({"sex": Sex.FEMALE}, [SMALL]), ({"sex": Sex.MALE}, [LARGE]), ({"min_age": 30}, [LARGE, SMALL]),
        ({"min_age": 31}, [LARGE]), ({"max_age": 41}, [SMALL]), ({"max_age": 42}, [LARGE, SMALL]),
        ({"sex": Sex.FEMALE, "min_age": 18, "max_age": 30}, [SMALL]),
        ({"sex": Sex.FEMALE, "min_age": 31}, []), ({"max_age": 0}, []),
    ],
)  # fmt: skip
async def test_faces_are_picked_by_the_sex_and_age_that_a_model_takes_them_for(
    world: World, chosen: dict[str, Any], replaced: list[object]
) -> None:
    world.profile = ALLOWED
    world.script.faces.append(TURNED)  # of which the model can tell nothing
    world.script.taken_for = {SMALL: Guess(Sex.FEMALE, 30), LARGE: Guess(Sex.MALE, 42)}
    ended = await world.worker.work(await world.create(options=Options(targets=Selection(Pick.ALL, **chosen))))
    assert [target for _, target in world.script.fused] == replaced
    if not replaced:
        assert ended.failure is not None
        assert (ended.failure.reason, ended.failure.metadata) == (
            "FACE_NOT_MATCHED", {"image": "target", "faces": "3"}
        )  # fmt: skip


async def test_where_there_is_no_face_none_is_guessed_at(world: World) -> None:
    world.profile = ALLOWED
    operation = await world.create(options=GUESSING)
    world.script.faces = []
    ended = await world.worker.work(operation)
    assert ended.failure is not None
    assert ended.failure.reason == "NO_FACE"


def test_weights_that_are_not_there_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = InsightFaceWeights(tmp_path, SWAPPING)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(FailedPrecondition) as refusal:
        weights.files()
    assert refusal.value.reason == "INSIGHTFACE_MISSING"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    for number, name in enumerate(SWAPPING):
        with pytest.raises(FailedPrecondition) as refusal:
            weights.files()
        assert (refusal.value.reason, refusal.value.metadata) == ("WEIGHTS_MISSING", {"file": name})
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(bytes([number]))
    assert [file.model.name for file in weights.files()] == [*SWAPPING]
    (tmp_path / SWAPPING[-1]).unlink()
    assert [file.model.name for file in InsightFaceWeights(tmp_path, MATCHING).files()] == [*MATCHING]


def test_weights_are_recorded_with_their_hash_and_licence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    (tmp_path / "buffalo_l").mkdir()
    for name in MATCHING:
        (tmp_path / name).write_bytes(name.encode())
    weights = InsightFaceWeights(tmp_path, MATCHING, "LicenseRef-bought")
    first = weights.files()[0].model
    assert (first.sha256, first.licence) == (sha256(DETECTOR.encode()), "LicenseRef-bought")
    (tmp_path / DETECTOR).write_bytes(b"another")
    assert weights.files()[0].model.sha256 == sha256(b"another")


def test_the_landmark_model_is_the_catalogues() -> None:
    catalog.fetch("facemesh")
    (file,) = CatalogWeights().files()
    assert (file.model.name, file.model.licence, file.path) == ("facemesh", "Apache-2.0", catalog.path("facemesh"))
    assert CatalogWeights().licence == "Apache-2.0"


@dataclass
class Answering:
    """A runner that answers as it is told."""

    told: object

    async def call(self, **asked: Any) -> Reply:
        """Answers."""
        name, blobs = {
            "resemble": ("similarities", [b"who", b"target"]), "guess": ("guesses", [b"target"]),
        }[asked["task"]]  # fmt: skip
        assert (asked["arguments"]["models"], asked["blobs"]) == ({}, blobs)
        return Reply({name: self.told})


@pytest.mark.parametrize(
    "told", [None, [], [0.5], [0.5, "0.5"], [0.5, 2.0], [0.5, float("nan")], [0.5, None, 0.5], {"0": 0.5}]
)
async def test_similarities_that_are_none_are_not_believed(told: object) -> None:
    matcher = Matcher(Answering(told), list, list)
    with pytest.raises(Internal) as refusal:
        await matcher.similarities("acme", "operations/1", b"who", b"target", [SMALL, LARGE])
    assert refusal.value.reason == "RUNNER_REPLY_INVALID"


async def test_similarities_are_those_of_the_faces_in_their_order() -> None:
    matcher = Matcher(Answering([-0.2, None]), list, list)
    assert await matcher.similarities("acme", "operations/1", b"who", b"target", [SMALL, LARGE]) == [-0.2, None]


@pytest.mark.parametrize("told", [
    None, [], [None], [None, ["other", 30]], [None, ["male", "30"]], [None, ["male", True]], [None, ["male", 30, 1]],
    [None, "male"],
])
async def test_guesses_that_are_none_are_not_believed(told: object) -> None:
    with pytest.raises(Internal) as refusal:
        await Matcher(Answering(told), list, list).guesses("acme", "operations/1", b"target", [SMALL, LARGE])
    assert refusal.value.reason == "RUNNER_REPLY_INVALID"


async def test_guesses_are_those_of_the_faces_in_their_order() -> None:
    matcher = Matcher(Answering([None, ["female", 8]]), list, list)
    assert await matcher.guesses("acme", "operations/1", b"target", [SMALL, LARGE]) == [None, Guess(Sex.FEMALE, 8)]
