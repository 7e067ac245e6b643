"""A tenant's models: the licence gate, creation, and the store beneath."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from facetmesh.detection.models import Models
from facetmesh.detection.store import DaprStore
from facetmesh.kit import catalog
from facetmesh.kit.errors import AlreadyExists, FacetmeshError, FailedPrecondition, NotFound

if TYPE_CHECKING:
    from conftest import Clock, MemoryState

FREE, GATED, PHOTO = "blazeface-full", "nudenet-320n", "photo-astronaut"


@dataclass
class Shelf:
    """The real catalogue's entries, with files that are there or not."""

    missing: set[str] = field(default_factory=set)
    asset = staticmethod(catalog.asset)

    def path(self, asset_id: str, /) -> Path:
        """Its file."""
        if asset_id in self.missing:
            raise FailedPrecondition("Fetch it.", reason="MODEL_NOT_FETCHED")
        return Path("/models") / asset_id


@pytest.fixture
def shelf() -> Shelf:
    """All files are there."""
    return Shelf()


@pytest.fixture
def described() -> list[tuple[object, ...]]:
    """The models that were asked for their labels."""
    return []


@pytest.fixture
def models(state: MemoryState, shelf: Shelf, clock: Clock, described: list[tuple[object, ...]]) -> Models:
    """Models over an empty store."""

    async def describe(*asked: object) -> tuple[str, ...]:
        described.append(asked)
        return ("face",)

    return Models(DaprStore(state), shelf, describe, clock)  # type: ignore[arg-type]


async def test_a_model_is_what_the_catalogue_and_its_file_say(
    models: Models, clock: Clock, described: list[tuple[object, ...]]
) -> None:
    """Opened once, in a process of its tenant."""
    model = await models.create("acme", "faces", FREE, "")
    entry = catalog.ASSETS[FREE]
    assert (model.sha256, model.licence, model.labels) == (entry.sha256, entry.licence, ("face",))
    assert (model.name, model.version) == ("tenants/acme/models/faces", "tenants/acme/models/faces/versions/1")
    assert model.created_s == clock.now
    assert model.etag
    assert described == [("acme", f"catalog/{FREE}", Path("/models") / FREE, entry.sha256)]
    assert await models.get("acme", "faces") == model
    assert models.path(model) == Path("/models") / FREE


@pytest.mark.parametrize("licence", ["", "MIT", "AGPL-3.0-only", "agpl-3.0"])
async def test_a_licence_is_accepted_by_its_name_or_not_at_all(
    models: Models, described: list[tuple[object, ...]], licence: str
) -> None:
    """And the model is not even opened before."""
    with pytest.raises(FailedPrecondition) as caught:
        await models.create("acme", "faces", GATED, licence)
    assert caught.value.reason == "LICENCE_NOT_ACCEPTED"
    assert "AGPL-3.0" in caught.value.message
    assert described == []
    assert (await models.create("acme", "faces", GATED, "AGPL-3.0")).licence == "AGPL-3.0"


@pytest.mark.parametrize(
    ("catalog_id", "code", "reason"),
    [("nothing", "NOT_FOUND", "UNKNOWN_ASSET"), (PHOTO, "INVALID_ARGUMENT", "NOT_A_MODEL")],
)
async def test_what_is_no_model_of_the_catalogue(models: Models, catalog_id: str, code: str, reason: str) -> None:
    """Unknown, or something else."""
    with pytest.raises(FacetmeshError) as caught:
        await models.create("acme", "faces", catalog_id, "")
    assert (caught.value.code, caught.value.reason) == (code, reason)


async def test_a_file_must_have_been_fetched(models: Models, shelf: Shelf) -> None:
    """The operator does that; and should it vanish later, the model says so."""
    shelf.missing.add(FREE)
    with pytest.raises(FailedPrecondition, match="Fetch"):
        await models.create("acme", "faces", FREE, "")
    shelf.missing.clear()
    model = await models.create("acme", "faces", FREE, "")
    shelf.missing.add(FREE)
    with pytest.raises(FailedPrecondition, match="Fetch"):
        models.path(model)


async def test_creating_the_same_again_returns_it(models: Models, clock: Clock) -> None:
    """Another under its id is refused."""
    first = await models.create("acme", "faces", FREE, "")
    clock.now += 1
    assert await models.create("acme", "faces", FREE, "") == first
    with pytest.raises(AlreadyExists) as caught:
        await models.create("acme", "faces", "blazeface-short", "")
    assert caught.value.reason == "MODEL_EXISTS"


async def test_tenants_do_not_see_each_others_models(models: Models) -> None:
    """Nor do ids clash between them."""
    await models.create("acme", "faces", FREE, "")
    await models.create("acme", "a", "blazeface-short", "")
    await models.create("globex", "faces", "blazeface-short", "")
    assert await models.ids("acme") == ["a", "faces"]
    assert await models.ids("globex") == ["faces"]
    assert await models.ids("initech") == []
    with pytest.raises(NotFound) as caught:
        await models.get("globex", "a")
    assert caught.value.reason == "MODEL_NOT_FOUND"


async def test_reading_a_model_again_costs_no_call(models: Models, state: MemoryState) -> None:
    """The hot path asks no store."""
    model = await models.create("acme", "faces", FREE, "")
    state.entries.clear()
    assert await models.get("acme", "faces") == model


async def test_what_is_stored_comes_back(state: MemoryState, models: Models) -> None:
    """By another process too."""
    model = await models.create("acme", "faces", FREE, "")
    again = Models(DaprStore(state), SimpleNamespace(), None, None)  # type: ignore[arg-type]
    assert await again.get("acme", "faces") == model
