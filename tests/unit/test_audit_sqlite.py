"""The log in a file: what can happen to a file."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facetmesh.audit.database import LogDatabase
from facetmesh.audit.fsck import Problem, fsck
from facetmesh.audit.retention import Retention
from facetmesh.audit.sqlite import SqliteConnection
from facetmesh.audit.store import Store
from facetmesh.kit.errors import FailedPrecondition, Unavailable

from .audit_world import World

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Services and their keys, with a file."""
    return World(tmp_path / "audit.db")


async def test_a_broken_file_is_a_problem_not_a_crash(world: World) -> None:
    await world.fill()
    pages = world.path.read_bytes()
    world.path.write_bytes(pages[: 1 << 14] + os.urandom(len(pages) - (1 << 14)))
    assert {problem.where for problem in await world.problems()} == {"store"}


async def test_a_full_disk_refuses_and_recovers(world: World) -> None:
    async with world.log() as (log, store):
        connection = store._writer.database.connection
        assert isinstance(connection, SqliteConnection)
        pages = connection.query("PRAGMA page_count")[0][0]
        connection.query(f"PRAGMA max_page_count = {pages}")
        batch = [world.signed() for _ in range(100)]
        with pytest.raises(Unavailable) as error:
            await log.ingest(batch)
        assert error.value.reason == "LOG_STORE_UNAVAILABLE"
        assert log.head == await store.head()
        assert log.head.size == 3
        connection.query("PRAGMA max_page_count = 100000")
        assert await log.ingest(batch) == [None] * 100
    assert await world.problems() == []


async def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    path = tmp_path / "audit.db"
    path.write_bytes(b"this is no database, it only has the name of one" * 100)
    with pytest.raises(Unavailable):
        async with Store.open(lambda: SqliteConnection(path)):
            pass


async def test_nobody_else_reads_the_file(world: World) -> None:
    await world.fill(1)
    assert world.path.stat().st_mode & 0o777 == 0o600


TABLES = ("tiles", "bundles", "events", "head", "retention", "cursors", "sightings")


async def full(world: World) -> None:
    """Puts something into every table."""
    await world.fill(300)
    async with world.store() as store:
        assert await store.set_retention(Retention("acme", 90, changed_us=5), changed_us=0)
        assert await store.take_cursor("alerts", "one", now_us=0, until_us=4) == 0
        await store.saw([("region-new", f"tenants/acme/keys/k{n}", "eu-west-1") for n in range(50)])


def content(path: Path) -> object:
    """What the log's tables say; None where they cannot be read."""
    try:
        with closing(sqlite3.connect(path)) as db:
            return {table: db.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall() for table in TABLES}  # noqa: S608 - our own names
    except (sqlite3.Error, UnicodeDecodeError):
        return None


async def problems_in(world: World, path: Path) -> list[Problem]:
    """What fsck says of a copy of the world's log."""
    try:
        with closing(SqliteConnection(path)) as connection:
            return await fsck(LogDatabase(connection), world.keyring)
    except (Unavailable, FailedPrecondition) as error:
        return [Problem("store", error.message)]


def found_or_harmless(world: World, file: bytes, scratch: Path, offset: int, bit: int) -> None:
    """A bit is flipped somewhere in the file: fsck says so, or it was none of the log's."""
    changed = bytearray(file)
    changed[offset] ^= 1 << bit
    scratch.unlink(missing_ok=True)
    scratch.write_bytes(changed)
    before, after = content(world.path), content(scratch)
    assert asyncio.run(problems_in(world, scratch)) or after == before, (offset, bit)


def test_a_bit_flipped_anywhere_is_found(world: World, tmp_path: Path) -> None:
    asyncio.run(full(world))
    file = world.path.read_bytes()
    offsets = random.Random(8)  # noqa: S311 - no secret
    (tmp_path / "copy").mkdir()
    for _ in range(60):
        offset, bit = offsets.randrange(len(file)), offsets.randrange(8)
        found_or_harmless(world, file, tmp_path / "copy" / "audit.db", offset, bit)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A log of 300 events."""
    world = World(tmp_path_factory.mktemp("log") / "audit.db")
    asyncio.run(full(world))
    return world


@pytest.mark.full
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_no_bit_is_overlooked(filled: World, data: st.DataObject) -> None:
    file = filled.path.read_bytes()
    offset, bit = data.draw(st.integers(0, len(file) - 1)), data.draw(st.integers(0, 7))
    found_or_harmless(filled, file, filled.path.with_name("copy.db"), offset, bit)
