"""Files of models that may be no version's, because who kept or deleted them was cut off in the middle.

What is about to be kept or deleted is noted first, and the note goes when it is done. What is still noted a day after
the version was made was cut off, by the end of the process or of the store: it is deleted, unless a version names it.
"""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from facetmesh.kit.errors import NotFound, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from facetmesh.detection.models import Models
    from facetmesh.detection.versions import Version

SETTLED_S = 24 * 3600.0
"""So old a version is no longer being kept. What is being deleted may be deleted by two."""


@dataclass(frozen=True, slots=True)
class Note:
    """A place for a file, which may be no version's."""

    tenant_id: str
    model_id: str
    """Of the only model whose version may have it."""
    blob: str
    parts: int
    created_s: int
    """When the version was made, in seconds since the epoch: of each there is one note, however often it is made."""


class NoteStore(Protocol):
    """Where notes are kept."""

    async def add_note(self, note: Note) -> None:
        """Keeps a note."""

    async def remove_note(self, note: Note) -> None:
        """Forgets a note; nothing happens when there is none."""

    async def notes(self) -> list[Note]:
        """All tenants' notes."""
        ...


class Places(Protocol):
    """Where files are kept."""

    async def discard(self, tenant_id: str, blob: str, parts: int) -> None:
        """Deletes what is kept in a place."""


class Leftovers:
    """Finds and deletes them.

    Args:
        notes: Where it is kept what may be one.
        models: What the tenants have.
        places: Where files are kept.
        clock: Seconds since the epoch.
    """

    def __init__(self, notes: NoteStore, models: Models, places: Places, clock: Callable[[], float]) -> None:
        self._notes = notes
        self._models = models
        self._places = places
        self._clock = clock

    @asynccontextmanager
    async def noted(self, versions: Sequence[Version]) -> AsyncIterator[None]:
        """While versions and their files come or go: what is cut off within will be found."""
        made = [
            Note(one.tenant_id, one.model_id, one.blob, one.parts, int(one.created_s)) for one in versions if one.parts
        ]
        for note in made:
            await self._notes.add_note(note)
        yield
        with suppress(Unavailable):  # it is done, and what stays noted is looked at one day
            for note in made:
                await self._notes.remove_note(note)

    async def sweep(self) -> int:
        """Deletes what was cut off; returns how many files were looked at.

        Raises:
            Unavailable: Something may be left.
        """
        old = [note for note in await self._notes.notes() if note.created_s + SETTLED_S < self._clock()]
        for note in old:
            if not await self._is_named(note):
                await self._places.discard(note.tenant_id, note.blob, note.parts)
            await self._notes.remove_note(note)
        return len(old)

    async def _is_named(self, note: Note) -> bool:
        """Whether a version has the place; NotFound where one is deleted meanwhile, and the next sweep will tell."""
        try:
            model = await self._models.get(note.tenant_id, note.model_id)
        except NotFound:
            return False
        return any(version.blob == note.blob for version in await self._models.versions(model, model.versions))
