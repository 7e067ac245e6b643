"""The SQLite file: durable, shared fairly, and alive after the disk was full."""

from __future__ import annotations

import asyncio
import resource
import sqlite3
import stat
from functools import partial
from typing import TYPE_CHECKING

import pytest

from facetmesh.kit.store import Store, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SCHEMA = "CREATE TABLE IF NOT EXISTS t (k TEXT PRIMARY KEY, v BLOB);"


def _insert(connection: sqlite3.Connection, key: str, size: int = 1) -> None:
    connection.execute("INSERT INTO t VALUES (?, zeroblob(?))", (key, size))


def _keys(connection: sqlite3.Connection) -> list[str]:
    return [key for (key,) in connection.execute("SELECT k FROM t ORDER BY k")]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "file.db", SCHEMA)
    yield store
    store.close()


async def test_what_was_written_is_there_for_others(store: Store) -> None:
    await store.run(partial(_insert, key="a"))
    with sqlite3.connect(store.path) as other:
        assert _keys(other) == ["a"]


async def test_the_file_is_for_its_owner_alone(store: Store) -> None:
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600


async def test_many_writers_share_commits(store: Store) -> None:
    statements: list[str] = []
    await store.run(lambda connection: connection.set_trace_callback(statements.append))
    await asyncio.gather(*(store.run(partial(_insert, key=f"{n:04}")) for n in range(2000)))
    assert len(await store.run(_keys)) == 2000
    assert statements.count("COMMIT") < 100


async def test_one_jobs_failure_undoes_that_job_alone(store: Store) -> None:
    def half(connection: sqlite3.Connection) -> None:
        _insert(connection, "half")
        raise LookupError("no")

    results = await asyncio.gather(
        store.run(partial(_insert, key="a")),
        store.run(half),
        store.run(partial(_insert, key="b")),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [type(None), LookupError, type(None)]
    assert await store.run(_keys) == ["a", "b"]


async def test_an_error_of_sqlite_is_one_jobs_alone_too(store: Store) -> None:
    results = await asyncio.gather(
        store.run(partial(_insert, key="a")),
        store.run(partial(_insert, key="a")),
        store.run(lambda connection: connection.execute("SELECT * FROM nowhere")),
        store.run(partial(_insert, key="b")),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [type(None), StoreError, StoreError, type(None)]
    assert await store.run(_keys) == ["a", "b"]


async def test_a_full_disk_refuses_what_has_no_room_and_goes_on_when_there_is(store: Store) -> None:
    pages = await store.run(lambda connection: connection.execute("PRAGMA page_count").fetchone()[0])
    await store.run(lambda connection: connection.execute(f"PRAGMA max_page_count = {pages + 20}").fetchone())
    results = await asyncio.gather(
        store.run(partial(_insert, key="large", size=1 << 20)),
        store.run(partial(_insert, key="small")),
        store.run(_keys),
        return_exceptions=True,
    )
    assert isinstance(results[0], StoreError)
    assert results[0].full
    assert results[1] is None
    await store.run(lambda connection: connection.execute("PRAGMA max_page_count = 100000").fetchone())
    await store.run(partial(_insert, key="large", size=1 << 20))
    assert await store.run(_keys) == ["large", "small"]


async def test_a_disk_that_failed_is_well_only_when_it_is_written_again(store: Store) -> None:
    await store.check()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        await store.check()  # nobody has tried to write
        with pytest.raises(StoreError):
            await store.run(partial(_insert, key="a"))
        assert await store.run(_keys) == [], "it can still be read"
        with pytest.raises(StoreError):
            await store.check()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    await store.check()
    assert not store.failing
    await store.run(partial(_insert, key="a"))


async def test_a_second_sidecar_is_kept_out(store: Store) -> None:
    with pytest.raises(StoreError, match="in use by another process"):
        Store(store.path, SCHEMA)


async def test_a_closed_store_finishes_first_and_takes_no_more(tmp_path: Path) -> None:
    store = Store(tmp_path / "file.db", SCHEMA)
    writing = [store.run(partial(_insert, key=str(n))) for n in range(50)]
    store.close()
    await asyncio.gather(*writing)
    with pytest.raises(StoreError):
        await store.run(_keys)
    again = Store(store.path, SCHEMA)
    assert len(await again.run(_keys)) == 50
    again.close()


async def test_who_no_longer_waits_harms_nobody(store: Store) -> None:
    store.run(partial(_insert, key="a")).cancel()
    await store.run(partial(_insert, key="b"))
    assert "b" in await store.run(_keys)


@pytest.mark.parametrize("content", [b"not a database at all, but long enough to be looked at" * 40])
def test_a_file_that_is_no_database_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file.db").write_bytes(content)
    with pytest.raises(StoreError, match=r"file\.db"):
        Store(tmp_path / "file.db", SCHEMA)
