"""The log in a file: what can happen to a file."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from facetmesh.audit.sqlite import SqliteConnection
from facetmesh.audit.store import Store
from facetmesh.kit.errors import Unavailable

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
