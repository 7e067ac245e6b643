"""Files that a process was keeping or deleting when it was killed: the next one finds those that nobody names."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from facetmesh.detection.intake import Intake
from facetmesh.detection.leftovers import SETTLED_S
from facetmesh.detection.models import Models
from facetmesh.detection.shelf import Shelf
from facetmesh.detection.store import DaprStore
from facetmesh.detection.uploads import PART_BYTES
from facetmesh.detection.versions import Facts, Version
from facetmesh.kit import catalog
from facetmesh.kit.blobs import Blobs, open_store
from facetmesh.kit.errors import Unavailable
from facetmesh.kit.keyring import Keyring
from facetmesh.kit.profiles import Unlimited

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Clock, MemoryState

PARTS = 3


class Killed(BaseException):
    """Nothing that would tidy up gets to."""


class Mortal(Blobs):
    """Blobs of a process that is killed."""

    changes_left = 1 << 30
    """So many more of its changes happen."""

    async def put(self, tenant: str, key: str, data: bytes) -> None:
        self._live()
        await super().put(tenant, key, data)

    async def delete(self, tenant: str, key: str) -> None:
        self._live()
        await super().delete(tenant, key)

    def _live(self) -> None:
        self.changes_left -= 1
        if self.changes_left < 0:
            raise Killed


@dataclass
class Process:
    """What of detection keeps files, over state and a folder that outlive it."""

    state: Any
    folder: Path
    clock: Clock
    blobs: Mortal = field(init=False)
    store: DaprStore = field(init=False)
    models: Models = field(init=False)
    intake: Intake = field(init=False)

    def __post_init__(self) -> None:
        """Starts."""
        self.blobs = Mortal(open_store(str(self.folder / "blobs")), Keyring(self.state, bytes(32)))
        self.store, clear = DaprStore(self.state), self.folder / "clear"
        clear.mkdir(exist_ok=True)
        self.models = Models(self.store)
        shelf = Shelf(catalog, self.blobs, clear, incoming=self.blobs, max_bytes=1 << 30)
        absent: Any = None
        self.intake = Intake(
            self.models, catalog, absent, shelf, workshop=absent, store=self.store, tenancy=Unlimited(),
            clock=self.clock,
        )  # fmt: skip

    async def keep(self) -> Version:
        """Keeps a file of three parts."""
        path = self.folder / "file"
        path.write_bytes(bytes(PARTS * PART_BYTES))
        facts = Facts(("cat",), "detect", 64, 64)
        fresh = Version("acme", "pets", 0, "0" * 64, PARTS * PART_BYTES, "MIT", facts, self.clock())
        return await self.intake.keep(fresh, path)

    def kept(self) -> int:
        """How many parts lie there."""
        return sum(path.is_file() for path in self.folder.glob("blobs/acme/models/*/*"))


@pytest.fixture
def process(state: MemoryState, tmp_path: Path, clock: Clock) -> Process:
    """The one that is killed."""
    return Process(state, tmp_path, clock)


@pytest.fixture
def following(process: Process) -> Process:
    """The one that comes after it."""
    return Process(process.state, process.folder, process.clock)


async def test_parts_that_no_version_came_of_go_after_a_day(process: Process, following: Process) -> None:
    process.blobs.changes_left = 2
    with pytest.raises(Killed):
        await process.keep()
    await following.intake.sweep()
    assert following.kept() == 2, "for all that it knows, somebody is still at it"
    following.clock.now += SETTLED_S + 1
    assert await following.intake.sweep() == 1
    assert following.kept() == 0
    assert await following.intake.sweep() == 0


async def test_parts_of_a_version_that_went_go_after_a_day(process: Process, following: Process) -> None:
    version = await process.keep()
    process.blobs.changes_left = 1
    with pytest.raises(Killed):
        await process.intake.delete(await process.models.get("acme", version.model_id))
    assert following.kept() == PARTS - 1
    following.clock.now += SETTLED_S + 1
    await following.intake.sweep()
    assert following.kept() == 0


async def test_what_a_version_names_stays(
    process: Process, following: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose note could not be taken away, as the store was gone by then, or whose deletion was refused."""

    async def away(_: object) -> None:
        raise Unavailable("The state store did not answer.")

    with monkeypatch.context() as patched:
        patched.setattr(process.store, "remove_note", away)
        await process.keep()
    following.clock.now += SETTLED_S + 1
    assert await following.intake.sweep() == 1
    assert following.kept() == PARTS


async def test_what_is_kept_and_deleted_in_peace_is_not_looked_at_again(process: Process) -> None:
    version = await process.keep()
    await process.intake.delete_version(await process.keep())
    process.clock.now += SETTLED_S + 1
    assert await process.intake.sweep() == 0
    assert process.kept() == version.parts == PARTS
