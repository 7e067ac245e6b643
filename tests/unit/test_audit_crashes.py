"""A process killed at any moment loses nothing that it acknowledged, and logs nothing twice."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from facetmesh.verify import open_checkpoint, verify_growth

if TYPE_CHECKING:
    from .audit_world import World

ROOT = Path(__file__).parents[2]
KILLS = 10


@pytest.fixture
def world(audit_world: World) -> World:
    """Services and their keys, with each of the stores."""
    return audit_world


async def killed_while_appending(store: str, keys: Path, after_s: float) -> list[dict[str, object]]:
    """What a process acknowledged until it was killed, at a random moment after its first commit."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.unit.audit_appender", store, str(keys),
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
        for line in await killed_while_appending(world.address, keys, random.uniform(0, 0.25)):  # noqa: S311 - no secret
            assert isinstance(line["ids"], list)
            acknowledged.update(line["ids"])
            checkpoints.add(str(line["checkpoint"]))
        assert await world.problems() == []
    async with world.log() as (log, store):
        found = [await store.find(event_id) for event_id in acknowledged]
        assert all(found)
        everything = await store.after(None, start=0, limit=1 << 30)
        assert len({one.id for one in everything}) == len(everything) == log.head.size
        signed = sorted((open_checkpoint(note, world.verifier_key) for note in checkpoints), key=lambda c: c.size)
        signed.append(open_checkpoint(log.checkpoint, world.verifier_key))
        for old, new in itertools.pairwise(signed):
            verify_growth(old, new, await log.consistency(old.size, new.size))
    assert len(acknowledged) > KILLS
