"""The log's tables, the same in each of the stores."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from facetmesh.audit.log import Log
from facetmesh.kit.errors import FailedPrecondition, Internal

from .test_audit_fsck import flip

if TYPE_CHECKING:
    from .audit_world import World


@pytest.fixture
def world(audit_world: World) -> World:
    """Services and their keys, with each of the stores."""
    return audit_world


async def test_no_checkpoint_is_signed_for_a_changed_tree(world: World) -> None:
    await world.fill()
    tile = world.value("SELECT hashes FROM tiles WHERE level = 0 AND number = 1")
    async with world.store() as store:
        log = await Log.open(store, world.keyring, world.signer, world.intake)
        before = log.checkpoint
        world.alter("UPDATE tiles SET hashes = ? WHERE level = 0 AND number = 1", flip(tile, 40))
        for refused in (log.ingest([world.signed()]), store.head(), Log.open(store, world.keyring, world.signer,
                                                                             world.intake)):  # fmt: skip
            with pytest.raises(Internal) as error:
                await refused
            assert error.value.reason == "LOG_CORRUPT"
        assert log.checkpoint == before
        world.alter("UPDATE tiles SET hashes = ? WHERE level = 0 AND number = 1", tile)
        assert await log.ingest([world.signed()]) == [None]


async def test_two_processes_write_one_log(world: World) -> None:
    async with world.log() as (one, _), world.log() as (other, _):
        for _ in range(5):
            await asyncio.gather(*(log.ingest([world.signed() for _ in range(7)]) for log in (one, other)))
        assert max(one.head.size, other.head.size) == 3 + 70
    assert await world.problems() == []


async def test_a_newer_file_is_left_alone(world: World) -> None:
    await world.fill(1)
    world.alter("INSERT INTO migrations VALUES (99, 0)")
    with pytest.raises(FailedPrecondition) as error:
        await world.fill(1)
    assert error.value.reason == "LOG_TOO_NEW"
