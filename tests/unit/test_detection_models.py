"""A tenant's models and their versions, and the store beneath."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from facetmesh.detection.models import MAX_VERSIONS, Models
from facetmesh.detection.splits import Traffic
from facetmesh.detection.store import DaprStore
from facetmesh.detection.versions import Facts, Tensor, Version
from facetmesh.kit.errors import (
    Aborted,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Unavailable,
)

if TYPE_CHECKING:
    from .conftest import Clock, MemoryState

FACTS = Facts(("face",), "detect", 64, 64, (Tensor("images", "FP32", (1, 3, -1, 64)),))


def version(model_id: str = "faces", tenant_id: str = "acme", sha256: str = "a" * 64) -> Version:
    """A version that has no number yet."""
    return Version(tenant_id, model_id, 0, sha256, 10, "MIT", FACTS, 5.0, source_sha256=sha256, blob="b", parts=2)


@pytest.fixture
def models(state: MemoryState, clock: Clock) -> Models:
    """Models over an empty store."""
    return Models(DaprStore(state), clock=clock)  # type: ignore[arg-type]


async def test_the_first_version_is_the_stable_one_and_later_ones_wait(models: Models) -> None:
    first = await models.add(version())
    second = await models.add(version(sha256="b" * 64))
    assert (first.number, second.number) == (1, 2)
    assert first.name == "tenants/acme/models/faces/versions/1"
    model = await models.get("acme", "faces")
    assert (model.aliases, model.versions, model.latest) == ({"stable": 1}, (1, 2), 2)
    assert await models.choose("acme", "faces") == first
    assert await models.choose("acme", "faces", "2") == second


@pytest.mark.parametrize("spelling", ["01", "\u0661", "9" * 5000])
async def test_a_number_has_one_spelling(models: Models, spelling: str) -> None:
    await models.add(version())
    with pytest.raises(NotFound) as refusal:
        await models.choose("acme", "faces", spelling)
    assert refusal.value.reason == "VERSION_NOT_FOUND"


async def test_an_alias_is_moved_and_calls_follow(models: Models) -> None:
    for sha256 in ("a" * 64, "b" * 64):
        await models.add(version(sha256=sha256))
    model = await models.get("acme", "faces")
    moved = await models.update(replace(model, aliases={"stable": 2, "canary": 1}))
    assert moved.etag != model.etag
    assert (await models.choose("acme", "faces")).number == 2
    assert (await models.choose("acme", "faces", "canary")).number == 1
    with pytest.raises(Aborted):  # who read it before the move
        await models.update(replace(model, aliases={"stable": 1}))


async def test_another_replica_hears_of_a_move_within_a_second(
    models: Models, state: MemoryState, clock: Clock
) -> None:
    await models.add(version())
    await models.add(version(sha256="b" * 64))
    other = Models(DaprStore(state), clock=clock)  # type: ignore[arg-type]
    assert (await other.choose("acme", "faces")).number == 1
    await models.update(replace(await models.get("acme", "faces"), aliases={"stable": 2}))
    clock.now += 1.01
    assert (await other.choose("acme", "faces")).number == 2


async def test_calls_are_split(models: Models) -> None:
    for sha256 in ("a" * 64, "b" * 64):
        await models.add(version(sha256=sha256))
    model = await models.get("acme", "faces")
    split = Traffic((("stable", 50), ("2", 50)), shadow="2", shadow_percent=100)
    await models.update(replace(model, traffic=split))
    numbers = {(await models.choose("acme", "faces", key=f"k{number}")).number for number in range(50)}
    assert numbers == {1, 2}
    assert (await models.choose("acme", "faces", "1", key="k1")).number == 1
    shadow = await models.shadow(await models.version("acme", "faces", 1))
    assert shadow is not None
    assert shadow.number == 2
    assert await models.shadow(shadow) is None  # nothing is compared with itself


async def test_a_replica_may_serve_an_alias(models: Models, state: MemoryState, clock: Clock) -> None:
    await models.add(version())
    await models.add(version(sha256="b" * 64))
    canary = Models(DaprStore(state), serves="canary", clock=clock)  # type: ignore[arg-type]
    assert (await canary.choose("acme", "faces")).number == 1  # no such alias: as the others do
    await models.update(replace(await models.get("acme", "faces"), aliases={"stable": 1, "canary": 2}))
    clock.now += 2
    assert (await canary.choose("acme", "faces")).number == 2
    assert (await canary.choose("acme", "faces", "stable")).number == 1


@pytest.mark.parametrize(
    ("aliases", "targets", "kind"),
    [
        ({"canary": 1}, (), InvalidArgument), ({"stable": 3}, (), NotFound), ({"stable": 1, "canary": 0}, (), NotFound),
        ({"stable": 1}, (("stable", 99),), InvalidArgument), ({"stable": 1}, (("gone", 100),), NotFound),
    ],
)  # fmt: skip
async def test_what_makes_no_sense_is_refused(
    models: Models, aliases: dict[str, int], targets: tuple[tuple[str, int], ...], kind: type[Exception]
) -> None:
    await models.add(version())
    model = await models.get("acme", "faces")
    with pytest.raises(kind):
        await models.update(replace(model, aliases=aliases, traffic=Traffic(targets)))


async def test_a_number_is_never_used_again(models: Models) -> None:
    """A version's name means one file, for ever: receipts say it."""
    await models.add(version())
    gone = await models.delete(await models.get("acme", "faces"))
    assert [one.number for one in gone] == [1]
    for ask in (models.get("acme", "faces"), models.choose("acme", "faces"), models.version("acme", "faces", 1)):
        with pytest.raises(NotFound):
            await ask
    assert await models.ids("acme") == []
    assert (await models.add(version(sha256="b" * 64))).number == 2
    assert (await models.choose("acme", "faces")).number == 2
    with pytest.raises(NotFound):
        await models.choose("acme", "faces", "1")


async def test_a_version_in_use_stays(models: Models) -> None:
    first = await models.add(version())
    second = await models.add(version(sha256="b" * 64))
    with pytest.raises(FailedPrecondition) as caught:
        await models.delete_version(first)
    assert caught.value.reason == "VERSION_IN_USE"
    await models.delete_version(second)
    assert (await models.get("acme", "faces")).versions == (1,)
    with pytest.raises(NotFound):
        await models.choose("acme", "faces", "2")


async def test_versions_are_limited(models: Models, state: MemoryState) -> None:
    await models.add(version())
    store = DaprStore(state)  # type: ignore[arg-type]
    model = await models.get("acme", "faces")
    await store.put_model(replace(model, versions=tuple(range(1, MAX_VERSIONS + 1)), latest=MAX_VERSIONS))
    with pytest.raises(ResourceExhausted) as caught:
        await models.add(version(sha256="b" * 64))
    assert caught.value.reason == "TOO_MANY_VERSIONS"


async def test_tenants_do_not_see_each_others_models(models: Models) -> None:
    await models.add(version())
    await models.add(version("a"))
    await models.add(version(tenant_id="globex"))
    assert await models.ids("acme") == ["a", "faces"]
    assert await models.ids("globex") == ["faces"]
    assert await models.ids("initech") == []
    with pytest.raises(NotFound) as caught:
        await models.get("globex", "a")
    assert caught.value.reason == "MODEL_NOT_FOUND"


async def test_while_the_store_is_away_what_is_known_answers_for_a_while(
    models: Models, state: MemoryState, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    added = await models.add(version())
    assert await models.choose("acme", "faces") == added

    async def away(_: str) -> None:
        raise Unavailable("away")

    monkeypatch.setattr(state, "get", away)
    assert await models.choose("acme", "faces") == added  # fresh: nobody is asked
    clock.now += 30
    assert await models.choose("acme", "faces") == added
    clock.now += 60
    with pytest.raises(Unavailable):
        await models.choose("acme", "faces")


async def test_what_is_stored_comes_back(models: Models, state: MemoryState, clock: Clock) -> None:
    added = await models.add(version())
    split = Traffic((("stable", 100),), "input", "1", 5)
    await models.update(replace(await models.get("acme", "faces"), traffic=split))
    again = Models(DaprStore(state), clock=clock)  # type: ignore[arg-type]
    assert await again.version("acme", "faces", 1) == added
    assert (await again.get("acme", "faces")).traffic == split
