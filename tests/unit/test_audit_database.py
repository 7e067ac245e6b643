"""The file: a process killed at any moment loses nothing that it acknowledged, and fsck finds what is changed."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import signal
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from facetmesh.audit.database import RECORD_BYTES, LogDatabase
from facetmesh.audit.fsck import fsck
from facetmesh.audit.log import Log
from facetmesh.audit.store import SqliteStore
from facetmesh.kit.errors import FailedPrecondition, Internal, Unavailable
from facetmesh.verify import open_checkpoint, verify_growth

from .audit_world import World

if TYPE_CHECKING:
    from facetmesh.audit.fsck import Problem

ROOT = Path(__file__).parents[2]
KILLS = 10


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Services and their keys."""
    return World(tmp_path / "audit.db")


async def checked(world: World) -> list[Problem]:
    """What fsck says of the world's log."""
    with closing(LogDatabase(world.path)) as database:
        return await fsck(database, world.keyring)


async def killed_while_appending(path: Path, keys: Path, after_s: float) -> list[dict[str, object]]:
    """What a process acknowledged until it was killed, at a random moment after its first commit."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.unit.audit_appender", str(path), str(keys),
        cwd=ROOT, stdout=asyncio.subprocess.PIPE, limit=1 << 20,
    )  # fmt: skip
    assert process.stdout is not None
    lines = [await asyncio.wait_for(process.stdout.readline(), 30)]
    killer = asyncio.get_running_loop().call_later(after_s, os.kill, process.pid, signal.SIGKILL)
    try:
        lines += (await process.stdout.read()).splitlines(keepends=True)
    finally:
        killer.cancel()
    assert await process.wait() == -signal.SIGKILL
    return [json.loads(line) for line in lines if line.endswith(b"\n")]


async def test_killed_at_any_moment(world: World, tmp_path: Path) -> None:
    """Appenders are killed, one after the other, while they write to one file.

    What each had acknowledged is there, once, and all checkpoints that were ever
    signed are of one growing log.
    """
    for tenant in ("acme", "platform"):
        await world.keyring.encrypt(tenant, b"")
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({name: entry.value.hex() for name, entry in world.state.entries.items()}))
    acknowledged: set[str] = set()
    checkpoints: set[str] = set()
    for _ in range(KILLS):
        for line in await killed_while_appending(world.path, keys, random.uniform(0, 0.25)):  # noqa: S311 - no secret
            assert isinstance(line["ids"], list)
            acknowledged.update(line["ids"])
            checkpoints.add(str(line["checkpoint"]))
        assert await checked(world) == []
    async with world.log() as (log, store):
        found = [await store.find(event_id) for event_id in acknowledged]
        assert all(found)
        everything = await store.newest(None, before=None, limit=1 << 30)
        assert len({one.id for one in everything}) == len(everything) == log.head.size
        signed = sorted((open_checkpoint(note, world.verifier_key) for note in checkpoints), key=lambda c: c.size)
        signed.append(open_checkpoint(log.checkpoint, world.verifier_key))
        for old, new in itertools.pairwise(signed):
            verify_growth(old, new, await log.consistency(old.size, new.size))
    assert len(acknowledged) > KILLS


async def filled(world: World, count: int = 300) -> None:
    """Puts events into the world's log."""
    async with world.log() as (log, _):
        await log.ingest([world.signed() for _ in range(count)])


def altered(path: Path, statement: str, *values: object) -> None:
    """Changes the file behind the log's back."""
    with closing(sqlite3.connect(path)) as db, db:
        assert db.execute(statement, values).rowcount == 1


def blob(path: Path, query: str) -> bytes:
    """A value in the file."""
    with closing(sqlite3.connect(path)) as db:
        (value,) = db.execute(query).fetchone()
    return bytes(value)


def flip(value: bytes, place: int) -> bytes:
    """The value with one bit changed."""
    return value[:place] + bytes([value[place] ^ 16]) + value[place + 1 :]


async def test_a_whole_file_has_no_problems(world: World) -> None:
    await filled(world, 600)
    assert await checked(world) == []


CHANGES = {
    "tile": ("tiles", "hashes", "level = 0 AND number = 0", 999, {"tile 0/0"}),
    "tile of the second level": ("tiles", "hashes", "level = 1 AND number = 0", 3, {"tile 1/0"}),
    "right edge": ("tiles", "hashes", "level = 0 AND number = 1", 0, {"tile 0/1"}),
    "entry": ("bundles", "entries", "number = 0", 5 * RECORD_BYTES + 7,
              {"tile 0/0", "tile 1/0", "head", "event 5"}),
    "entry's length": ("bundles", "entries", "number = 0", 5 * RECORD_BYTES, {"bundle 0"}),
    "body": ("events", "body", "position = 200", 80, {"event 200"}),
    "digest": ("events", "digest", "position = 200", 1, {"event 200"}),
    "head": ("head", "root", "only = 1", 1, {"head"}),
}  # fmt: skip


@pytest.mark.parametrize("what", CHANGES)
async def test_a_flipped_bit_is_found_and_named(world: World, what: str) -> None:
    await filled(world)
    table, column, where, place, names = CHANGES[what]
    value = blob(world.path, f"SELECT {column} FROM {table} WHERE {where}")  # noqa: S608 - the table above
    altered(world.path, f"UPDATE {table} SET {column} = ? WHERE {where}", flip(value, place))  # noqa: S608 - the same
    assert {problem.where for problem in await checked(world)} == names


@pytest.mark.parametrize(
    ("statement", "names"),
    [
        ("UPDATE events SET tenant = 'globex' WHERE position = 7", {"event 7"}),
        ("UPDATE events SET time_us = 1 WHERE position = 7", {"event 7"}),
        ("UPDATE events SET id = 'x' WHERE position = 7", {"event 7"}),
        ("UPDATE events SET body = x'01' WHERE position = 7", {"event 7"}),
        ("DELETE FROM events WHERE position = 7", {"event 7"}),
        ("DELETE FROM tiles WHERE level = 1", {"tile 1/0"}),
        ("DELETE FROM bundles WHERE number = 1", {"bundle 1", *(f"event {n}" for n in range(256, 303))}),
        ("INSERT INTO tiles VALUES (2, 0, x'00')", {"tile 2/0"}),
        ("UPDATE head SET size = 302", {"bundle 1"}),
    ],
)
async def test_what_is_missing_or_moved_is_found_and_named(world: World, statement: str, names: set[str]) -> None:
    await filled(world)
    await world.keyring.encrypt("globex", b"")  # the tenant exists: without a key, its events count as destroyed
    altered(world.path, statement)
    assert {problem.where for problem in await checked(world)} == names


async def test_bodies_may_expire(world: World) -> None:
    await filled(world)
    (event_id,) = (await checked_ids(world))[:1]
    altered(world.path, "UPDATE events SET body = NULL WHERE id = ?", event_id)
    await world.keyring.destroy("acme")
    assert await checked(world) == []
    async with world.log() as (_, store):
        assert await store.find(event_id) is None


async def checked_ids(world: World) -> list[str]:
    """The ids of the newest events."""
    async with SqliteStore.open(world.path) as store:
        return [stored.id for stored in await store.newest("acme", before=None, limit=10)]


async def test_a_broken_file_is_a_problem_not_a_crash(world: World) -> None:
    await filled(world)
    pages = world.path.read_bytes()
    world.path.write_bytes(pages[: 1 << 14] + os.urandom(len(pages) - (1 << 14)))
    assert {problem.where for problem in await checked(world)} == {"file"}


async def test_no_checkpoint_is_signed_for_a_changed_tree(world: World) -> None:
    await filled(world)
    tile = blob(world.path, "SELECT hashes FROM tiles WHERE level = 0 AND number = 1")
    async with SqliteStore.open(world.path) as store:
        log = await Log.open(store, world.keyring, world.signer, world.intake)
        before = log.checkpoint
        altered(world.path, "UPDATE tiles SET hashes = ? WHERE level = 0 AND number = 1", flip(tile, 40))
        for refused in (log.ingest([world.signed()]), store.head(), Log.open(store, world.keyring, world.signer,
                                                                             world.intake)):  # fmt: skip
            with pytest.raises(Internal) as error:
                await refused
            assert error.value.reason == "LOG_CORRUPT"
        assert log.checkpoint == before
        altered(world.path, "UPDATE tiles SET hashes = ? WHERE level = 0 AND number = 1", tile)
        assert await log.ingest([world.signed()]) == [None]


async def test_a_full_disk_refuses_and_recovers(world: World) -> None:
    async with world.log() as (log, store):
        pages = await store._do(lambda d: d._db.execute("PRAGMA page_count").fetchone()[0])
        await store._do(lambda d: d._db.execute(f"PRAGMA max_page_count = {pages}").fetchone())
        batch = [world.signed() for _ in range(100)]
        with pytest.raises(Unavailable) as error:
            await log.ingest(batch)
        assert error.value.reason == "LOG_STORE_UNAVAILABLE"
        assert log.head == await store.head()
        assert log.head.size == 3
        await store._do(lambda d: d._db.execute("PRAGMA max_page_count = 100000").fetchone())
        assert await log.ingest(batch) == [None] * 100
    assert await checked(world) == []


async def test_two_processes_write_one_log(world: World) -> None:
    async with world.log() as (one, _), world.log() as (other, _):
        for _ in range(5):
            await asyncio.gather(*(log.ingest([world.signed() for _ in range(7)]) for log in (one, other)))
        assert max(one.head.size, other.head.size) == 3 + 70
    assert await checked(world) == []


async def test_a_newer_file_is_left_alone(world: World) -> None:
    await filled(world, 1)
    altered(world.path, "INSERT INTO migrations VALUES (99, 0)")
    with pytest.raises(FailedPrecondition) as error:
        await filled(world, 1)
    assert error.value.reason == "LOG_TOO_NEW"


async def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    path = tmp_path / "audit.db"
    path.write_bytes(b"this is no database, it only has the name of one" * 100)
    with pytest.raises(Unavailable):
        async with SqliteStore.open(path):
            pass


async def test_nobody_else_reads_the_file(world: World) -> None:
    await filled(world, 1)
    assert world.path.stat().st_mode & 0o777 == 0o600
