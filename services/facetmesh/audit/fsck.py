"""Checks a log's store against itself: every hash is computed anew from the entries."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING

from facetmesh.audit.database import RECORD_BYTES
from facetmesh.audit.intake import logged_event
from facetmesh.audit.merkle import WIDTH, Tree
from facetmesh.audit.receipts import opened
from facetmesh.kit.errors import FacetmeshError, NotFound
from facetmesh.verify.entry import ENTRY_BYTES, entry
from facetmesh.verify.errors import VerificationError
from facetmesh.verify.merkle import leaf_hash

if TYPE_CHECKING:
    from collections.abc import Iterator

    from facetmesh.audit.database import LogDatabase
    from facetmesh.audit.log import Sealer, Stored

_LENGTH_BYTES = RECORD_BYTES - ENTRY_BYTES


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in the store that cannot be."""

    where: str
    """Such as `tile 0/12` or `event 3100`."""
    what: str


class _Rebuilt:
    """The tiles as the entries give them."""

    def __init__(self) -> None:
        self.tiles: dict[tuple[int, int], bytes] = {}
        self.size = 0

    def tile(self, level: int, number: int) -> bytes:
        return self.tiles.get((level, number), b"")

    def add(self, leaves: list[bytes]) -> None:
        self.tiles.update(Tree(self, self.size).extended(leaves))
        self.size += len(leaves)


async def fsck(database: LogDatabase, sealer: Sealer) -> list[Problem]:
    """What is wrong with the store; nothing when it is whole.

    Bodies that have expired, or whose tenant's key was destroyed, are not looked at.

    Args:
        database: The store, which may be in use meanwhile.
        sealer: Decrypts the events.
    """
    try:
        with database.snapshot():
            problems = [Problem("file", text) for text in database.integrity()]
            problems += _check_tree(database)
            for start in range(0, database.stored_head().size, WIDTH):
                problems += await _check_events(database, start, sealer)
    except sqlite3.DatabaseError as error:
        return [Problem("file", str(error))]
    return problems


def _check_tree(database: LogDatabase) -> Iterator[Problem]:
    head = database.stored_head()
    rebuilt = _Rebuilt()
    for start in range(0, head.size, WIDTH):
        bundle = database.bundle(start // WIDTH)
        expected = min(WIDTH, head.size - start)
        if len(bundle) != expected * RECORD_BYTES:
            yield Problem(f"bundle {start // WIDTH}", f"{len(bundle)} bytes where {expected} entries should be")
            return  # all that follows would be wrong for this reason alone
        records = [bundle[at : at + RECORD_BYTES] for at in range(0, len(bundle), RECORD_BYTES)]
        if any(int.from_bytes(record[:_LENGTH_BYTES], "big") != ENTRY_BYTES for record in records):
            yield Problem(f"bundle {start // WIDTH}", "an entry's length is wrong")
        rebuilt.add([leaf_hash(record[_LENGTH_BYTES:]) for record in records])
    for level, number in {*rebuilt.tiles, *database.tiles()}:
        if database.tile(level, number) != rebuilt.tile(level, number):
            yield Problem(f"tile {level}/{number}", "not what the entries say")
    if Tree(rebuilt, head.size).root() != head.root:
        yield Problem("head", "not the root hash of the entries")


async def _check_events(database: LogDatabase, start: int, sealer: Sealer) -> list[Problem]:
    """Checks the events beside the bundle that begins at start."""
    end = min(start + WIDTH, database.stored_head().size)
    missing = set(range(start, end)) - set(database.positions(start, end))
    problems = [Problem(f"event {index}", "there is none beside its entry") for index in sorted(missing)]
    bundle = database.bundle(start // WIDTH)
    for stored in database.between(start, end):
        record = bundle[(stored.index - start) * RECORD_BYTES :][_LENGTH_BYTES:RECORD_BYTES]
        what = await _event_problem(stored, record, sealer)
        if what is not None:
            problems.append(Problem(f"event {stored.index}", what))
    return problems


async def _event_problem(stored: Stored, logged: bytes, sealer: Sealer) -> str | None:
    try:
        body = await opened(stored, sealer)
        if entry(body.salt, body.signed_event) != logged:
            return "not what its entry commits to"
        event = logged_event(body.signed_event)
    except NotFound:
        return None
    except (FacetmeshError, VerificationError, ValueError) as error:
        return f"cannot be read: {error}"
    columns = (stored.id, stored.tenant, stored.time_us, stored.digest)
    if columns != (event.id, event.tenant, event.time_us, event.digest):
        return "its columns are not what the event says"
    return None
