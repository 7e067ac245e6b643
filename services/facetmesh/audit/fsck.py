"""Checks a log's store against itself: every hash is computed anew from the entries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from facetmesh.audit.bookkeeping import changed_rows
from facetmesh.audit.database import RECORD_BYTES, checksum
from facetmesh.audit.intake import logged_event
from facetmesh.audit.merkle import WIDTH, Tree
from facetmesh.audit.receipts import opened
from facetmesh.audit.records import Stored
from facetmesh.kit.errors import Internal, NotFound, Unavailable
from facetmesh.verify.entry import ENTRY_BYTES, entry
from facetmesh.verify.errors import VerificationError
from facetmesh.verify.merkle import leaf_hash

if TYPE_CHECKING:
    from collections.abc import Iterator

    from facetmesh.audit.database import Kept, LogDatabase
    from facetmesh.audit.records import Sealer

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


async def fsck(database: LogDatabase, sealer: Sealer | None) -> list[Problem]:
    """What is wrong with the store; nothing when it is whole.

    Bodies that have expired, or whose tenant's key was destroyed, cannot be opened:
    that they are what was written, their checksums say, and no more.

    Args:
        database: The store, which may be in use meanwhile.
        sealer: Decrypts the events; None where the keys are out of reach, as while the mesh is down.
    """
    try:
        with database.connection.snapshot():
            problems = [Problem("store", text) for text in database.connection.integrity()]
            problems += _check_tree(database)
            size = min(database.stored_head().size, database.extent())
            for start in range(0, size, WIDTH):
                problems += await _check_events(database, start, min(start + WIDTH, size), sealer)
            beyond = database.kept(size, 1 << 62)
            problems += [Problem(f"event {one.index}", "beyond the log's end") for one in beyond]
            problems += [Problem(row, "not what was written") for row in changed_rows(database.connection)]
    except Unavailable as error:
        return [Problem("store", str(error.__cause__ or error))]
    except (AttributeError, OverflowError, TypeError, ValueError) as error:
        # SQLite keeps a value's type beside the value.
        return [Problem("store", f"another kind of value than was written: {error}")]
    return problems


def _check_tree(database: LogDatabase) -> Iterator[Problem]:
    head = database.stored_head()
    rebuilt = _Rebuilt()
    bundles, extent = set(database.bundles()), database.extent()
    for start in range(0, head.size, WIDTH):
        number = start // WIDTH
        if start >= extent:
            yield Problem("head", f"{head.size} entries, and there are no more than {start}")
            return
        bundles.discard(number)
        bundle = database.bundle(number)
        expected = min(WIDTH, head.size - start)
        if len(bundle) != expected * RECORD_BYTES:
            yield Problem(f"bundle {number}", f"{len(bundle)} bytes where {expected} entries should be")
            return  # all that follows would be wrong for this reason alone
        records = [bundle[at : at + RECORD_BYTES] for at in range(0, len(bundle), RECORD_BYTES)]
        if any(int.from_bytes(record[:_LENGTH_BYTES], "big") != ENTRY_BYTES for record in records):
            yield Problem(f"bundle {number}", "an entry's length is wrong")
        rebuilt.add([leaf_hash(record[_LENGTH_BYTES:]) for record in records])
    for number in sorted(bundles):
        yield Problem(f"bundle {number}", "beyond the log's end")
    for level, number in sorted({*rebuilt.tiles, *database.tiles()}):
        if database.tile(level, number) != rebuilt.tile(level, number):
            yield Problem(f"tile {level}/{number}", "not what the entries say")
    if Tree(rebuilt, head.size).root() != head.root:
        yield Problem("head", "not the root hash of the entries")


async def _check_events(database: LogDatabase, start: int, end: int, sealer: Sealer | None) -> list[Problem]:
    """Checks what stands beside the entries of one bundle."""
    rows = {one.index: one for one in database.kept(start, end)}
    bundle = database.bundle(start // WIDTH)
    problems: list[Problem] = []
    for index in range(start, end):
        record = bundle[(index - start) * RECORD_BYTES :][_LENGTH_BYTES:RECORD_BYTES]
        what = await _problem(rows.get(index), record, sealer)
        if what is not None:
            problems.append(Problem(f"event {index}", what))
    return problems


async def _problem(kept: Kept | None, logged: bytes, sealer: Sealer | None) -> str | None:
    if kept is None:
        return "there is none beside its entry"
    if checksum(kept.id, kept.tenant, kept.time_us, kept.digest, kept.body) != kept.checksum:
        return "not what was written"
    if kept.body is None or sealer is None:
        return None
    stored = Stored(kept.index, kept.id, kept.tenant, kept.time_us, kept.digest, kept.body)
    return await _body_problem(stored, logged, sealer)


async def _body_problem(stored: Stored, logged: bytes, sealer: Sealer) -> str | None:
    try:
        body = await opened(stored, sealer)
        if entry(body.salt, body.signed_event) != logged:
            return "not what its entry commits to"
        event = logged_event(body.signed_event)
    except NotFound:
        return None
    except (Internal, VerificationError, ValueError) as error:
        return f"cannot be read: {error}"
    columns = (stored.id, stored.tenant, stored.time_us, stored.digest)
    if columns != (event.id, event.tenant, event.time_us, event.digest):
        return "its columns are not what the event says"
    return None
