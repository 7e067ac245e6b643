"""fsck finds what was changed in the store, and names the place."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from facetmesh.audit.database import RECORD_BYTES, LogDatabase
from facetmesh.audit.fsck import fsck
from facetmesh.audit.receipts import opened
from facetmesh.audit.retention import Retention
from facetmesh.kit.errors import NotFound
from facetmesh.kit.keks import Keks
from facetmesh.kit.keyring import Keyring
from facetmesh.verify.event import parse

from .audit_world import seed

if TYPE_CHECKING:
    from .audit_world import World


@pytest.fixture
def world(audit_world: World) -> World:
    """Services and their keys, with each of the stores."""
    return audit_world


def flip(value: bytes, place: int) -> bytes:
    """The value with one bit changed."""
    return value[:place] + bytes([value[place] ^ 16]) + value[place + 1 :]


async def test_a_whole_file_has_no_problems(world: World) -> None:
    await world.fill(600)
    assert await world.problems() == []


CHANGES = {
    "tile": ("tiles", "hashes", "level = 0 AND number = 0", 999, {"tile 0/0"}),
    "tile of the second level": ("tiles", "hashes", "level = 1 AND number = 0", 3, {"tile 1/0"}),
    "right edge": ("tiles", "hashes", "level = 0 AND number = 1", 0, {"tile 0/1"}),
    "entry": ("bundles", "entries", "number = 0", 5 * RECORD_BYTES + 7,
              {"tile 0/0", "tile 1/0", "head", "event 5"}),
    "entry's length": ("bundles", "entries", "number = 0", 5 * RECORD_BYTES, {"bundle 0"}),
    "body": ("events", "body", "position = 200", 80, {"event 200"}),
    "digest": ("events", "digest", "position = 200", 1, {"event 200"}),
    "head": ("head", "root", "only_row = 1", 1, {"head"}),
}  # fmt: skip


@pytest.mark.parametrize("what", CHANGES)
async def test_a_flipped_bit_is_found_and_named(world: World, what: str) -> None:
    await world.fill()
    table, column, where, place, names = CHANGES[what]
    value = world.value(f"SELECT {column} FROM {table} WHERE {where}")  # noqa: S608 - the table above
    world.alter(f"UPDATE {table} SET {column} = ? WHERE {where}", flip(value, place))  # noqa: S608 - the same
    assert {problem.where for problem in await world.problems()} == names


@pytest.mark.parametrize(
    ("statement", "names"),
    [
        ("UPDATE events SET tenant = 'globex' WHERE position = 7", {"event 7"}),
        ("UPDATE events SET time_us = 1 WHERE position = 7", {"event 7"}),
        ("UPDATE events SET id = 'x' WHERE position = 7", {"event 7"}),
        ("UPDATE events SET body = digest WHERE position = 7", {"event 7"}),
        ("DELETE FROM events WHERE position = 7", {"event 7"}),
        ("DELETE FROM tiles WHERE level = 1", {"tile 1/0"}),
        ("DELETE FROM bundles WHERE number = 1", {"bundle 1", *(f"event {n}" for n in range(256, 303))}),
        ("INSERT INTO tiles SELECT 2, 0, hashes FROM tiles WHERE level = 1", {"tile 2/0"}),
        ("INSERT INTO bundles SELECT 2, entries FROM bundles WHERE number = 1", {"bundle 2"}),
        ("UPDATE events SET position = 400 WHERE position = 302", {"event 302", "event 400"}),
        ("UPDATE head SET size = 302", {"bundle 1", "event 302"}),
    ],
)
async def test_what_is_missing_or_moved_is_found_and_named(world: World, statement: str, names: set[str]) -> None:
    await world.fill()
    await world.keyring.encrypt("globex", b"")  # the tenant exists: without a key, its events count as destroyed
    world.alter(statement)
    assert {problem.where for problem in await world.problems()} == names


@pytest.mark.parametrize(
    ("statement", "where"),
    [
        ("UPDATE retention SET days = 9", "retention acme"),
        ("UPDATE retention SET hold = 0", "retention acme"),
        ("UPDATE retention SET tenant = 'acmf'", "retention acmf"),
        ("UPDATE cursors SET position = 41", "cursors alerts"),
        ("UPDATE cursors SET until_us = 7", "cursors alerts"),
        ("UPDATE sightings SET value = 'eu-west-2'", "sightings region-new"),
    ],
)
async def test_what_was_changed_beside_the_log_is_found_and_named(world: World, statement: str, where: str) -> None:
    async with world.store() as store:
        assert await store.set_retention(Retention("acme", 90, hold=True, reason="case 17", changed_us=5), changed_us=0)
        assert await store.take_cursor("alerts", "one", now_us=0, until_us=4) == 0
        assert await store.move_cursor("alerts", "one", 40)
        assert await store.take_cursor("alerts", "two", now_us=5, until_us=9) == 40
        await store.saw([("region-new", "tenants/acme/keys/k", "eu-west-1")])
    assert await world.problems() == []
    world.alter(statement)
    assert [problem.where for problem in await world.problems()] == [where]


@pytest.mark.parametrize("keys", [True, False])
async def test_bodies_may_expire(world: World, *, keys: bool) -> None:
    await world.fill()
    async with world.log() as (_, store):
        before = await store.after("acme", start=0, limit=400)
        assert await store.expire("acme", before[0].time_us + 1, 1) == 1
        left = {one.id for one in await store.after("acme", start=0, limit=400)}
        (gone,) = {one.id for one in before} - left
        assert await store.find(gone) is None
    if keys:
        await world.keyring.destroy("acme")
    assert await world.problems() == []
    world.alter("UPDATE events SET time_us = time_us + 1 WHERE id = ?", gone)
    assert [problem.what for problem in await world.problems()] == ["not what was written"]


@pytest.mark.parametrize("what", ["body", "digest"])
async def test_a_flipped_bit_is_found_without_keys(world: World, what: str) -> None:
    await world.fill()
    table, column, where, place, _ = CHANGES[what]
    value = world.value(f"SELECT {column} FROM {table} WHERE {where}")  # noqa: S608 - the table above
    world.alter(f"UPDATE {table} SET {column} = ? WHERE {where}", flip(value, place))  # noqa: S608 - the same
    with closing(world.connect()) as connection:
        assert [problem.where for problem in await fsck(LogDatabase(connection), None)] == ["event 200"]


async def test_a_purged_tenants_bodies_are_gone_and_the_log_is_whole(world: World) -> None:
    """The tenant's keys are destroyed; what is done to it afterwards is logged under a new one."""
    keyring = Keyring(world.state, Keks([seed("kek")]), reopens=True)
    world.keyring = keyring
    before, after = world.event(), world.event()
    async with world.log() as (log, store):
        sign = world.services["detection"].sign
        await log.ingest([sign(before)])
        await keyring.destroy("acme")
        await log.ingest([sign(after)])
        old, new = await store.find(before.id), await store.find(after.id)
        assert old is not None
        assert new is not None
        with pytest.raises(NotFound):
            await opened(old, keyring)
        assert parse((await opened(new, keyring)).signed_event)[1] == after
    assert await world.problems() == []
