"""A process killed at any moment loses nothing that it acknowledged, and logs nothing twice."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from facetmesh.verify import open_checkpoint, verify_growth

from .audit_world import World

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

    from .audit_postgres import PostgresServer

ROOT = Path(__file__).parents[2]
DEADLINE_S = 180


@pytest.fixture
def world(audit_world: World) -> World:
    """Services and their keys, with each of the stores."""
    return audit_world


@pytest.fixture
def sqlite_world(tmp_path: Path) -> World:
    """Services and their keys, with a file."""
    return World.at(str(tmp_path / "audit.db"))


@dataclass
class Appenders:
    """Forks processes that append, one at a time."""

    server: asyncio.subprocess.Process

    async def fork(self, store: str, keys: Path, batches: int) -> int:
        """Makes one, which waits; returns its process id."""
        self.say(f"{store}\n{keys}\n{batches}\n")
        return int((await self.heard())["pid"])

    def say(self, text: str) -> None:
        """Tells them something; one that waits begins."""
        assert self.server.stdin is not None
        self.server.stdin.write(text.encode())

    async def heard(self) -> dict[str, Any]:
        """What was said next."""
        assert self.server.stdout is not None
        line = await asyncio.wait_for(self.server.stdout.readline(), DEADLINE_S)
        heard: dict[str, Any] = json.loads(line)
        return heard

    async def killed(self, store: str, keys: Path, after_s: float) -> list[dict[str, Any]]:
        """What a process acknowledged until it was killed, at a random moment after its first commit."""
        pid = await self.fork(store, keys, 0)
        self.say("\n")
        first = await self.heard()
        asyncio.get_running_loop().call_later(after_s, os.kill, pid, signal.SIGKILL)
        *others, end = await self.until_end()
        assert end == {"ended": -signal.SIGKILL}
        return [first, *others]

    async def disturbed(self, store: str, keys: Path, call: str, what: str) -> list[dict[str, Any]]:
        """What a process acknowledged, one of whose system calls did not go well."""
        pid = await self.fork(store, keys, 4)
        strace = await asyncio.create_subprocess_exec(
            "strace", "-f", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:{what}", "-p", str(pid),
            stderr=asyncio.subprocess.PIPE,
        )
        assert strace.stderr is not None
        while b"attached" not in await asyncio.wait_for(strace.stderr.readline(), DEADLINE_S):
            assert strace.returncode is None
        self.say("\n")
        *acknowledged, _ = await self.until_end()
        await asyncio.wait_for(strace.communicate(), DEADLINE_S)
        return acknowledged

    async def until_end(self) -> list[dict[str, Any]]:
        """What was said until one ended, and how it did."""
        lines = [await self.heard()]
        while "ended" not in lines[-1]:
            lines.append(await self.heard())
        return lines


@asynccontextmanager
async def appenders() -> AsyncIterator[Appenders]:
    """What forks them; nothing is left of them at the end."""
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.unit.audit_appender", cwd=ROOT, limit=1 << 20,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        yield Appenders(server)
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        await server.wait()


async def prepared(world: World, tmp_path: Path) -> Path:
    """Makes the tenants' keys, and a file with them for the other processes."""
    for tenant in ("acme", "platform"):
        await world.keyring.encrypt(tenant, b"")
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({name: entry.value.hex() for name, entry in world.state.entries.items()}))
    return keys


@dataclass
class Promised:
    """What was acknowledged, and which checkpoints were signed."""

    ids: set[str] = field(default_factory=set)
    checkpoints: set[str] = field(default_factory=set)

    def add(self, lines: list[dict[str, object]]) -> None:
        """Takes in what an appender said."""
        for line in lines:
            assert isinstance(line["ids"], list)
            self.ids.update(line["ids"])
            self.checkpoints.add(str(line["checkpoint"]))

    async def holds(self, world: World) -> None:
        """What was acknowledged is there, once, and all checkpoints are of one growing log."""
        assert await world.problems() == []
        async with world.log() as (log, store):
            everything = [one.id for one in await store.after(None, start=0, limit=1 << 30)]
            assert len(set(everything)) == len(everything) == log.head.size
            assert self.ids <= set(everything)
            signed = sorted((open_checkpoint(note, world.verifier_key) for note in self.checkpoints),
                            key=lambda checkpoint: checkpoint.size)  # fmt: skip
            signed.append(open_checkpoint(log.checkpoint, world.verifier_key))
            for old, new in itertools.pairwise(signed):
                verify_growth(old, new, await log.consistency(old.size, new.size))


async def killed_again_and_again(world: World, tmp_path: Path, kills: int) -> None:
    """Appenders are killed, one after the other, while they write to one log."""
    keys, promised = await prepared(world, tmp_path), Promised()
    async with appenders() as forked:
        for kill in range(kills):
            after_s = random.uniform(0, 0.25)  # noqa: S311 - no secret
            promised.add(await forked.killed(world.address, keys, after_s))
            if kill % 25 == 0:
                assert await world.problems() == []
    await promised.holds(world)
    assert len(promised.ids) > kills


async def test_killed_at_any_moment(world: World, tmp_path: Path) -> None:
    await killed_again_and_again(world, tmp_path, 3)


@pytest.mark.full
async def test_killed_again_and_again(world: World, tmp_path: Path) -> None:
    """FACETMESH_KILLS of them, 12 by default; `make test-chaos` tries 1,000."""
    await killed_again_and_again(world, tmp_path, int(os.environ.get("FACETMESH_KILLS", "12")))


def traceable() -> bool:
    """Whether a process may be held at its system calls here."""
    traced = ("strace", "-f", "-o", "/dev/null", "true")
    return (
        shutil.which("strace") is not None and subprocess.run(traced, check=False, capture_output=True).returncode == 0
    )


async def disturbed_at(world: World, tmp_path: Path, faults: Iterable[tuple[str, int, str]]) -> None:
    """Each fault, one after the other, on one log."""
    if not traceable():
        pytest.skip("strace cannot hold a process's system calls here")
    keys, promised = await prepared(world, tmp_path), Promised()
    async with appenders() as forked:
        # No fault yet: the log exists.
        promised.add(await forked.disturbed(world.address, keys, "unlink", "error=EIO:when=999"))
        assert promised.ids
        for call, when, what in faults:
            promised.add(await forked.disturbed(world.address, keys, call, f"{what}:when={when}"))
            assert await world.problems() == [], (call, when, what)
    await promised.holds(world)


def faults(calls: Mapping[str, tuple[int, Sequence[str]]]) -> list[tuple[str, int, str]]:
    """FACETMESH_FAULTS of the times that each call is made, 8 by default, with each kind of fault.

    Args:
        calls: Those to be disturbed: how often each is made, about, and what may happen to it.
    """
    count = int(os.environ.get("FACETMESH_FAULTS", "8"))
    return [
        (call, when, what)
        for call, (last, kinds) in calls.items()
        for when in range(1, last, max(1, last // count))
        for what in kinds
    ]


SQLITE_WRITES = {
    "pwrite64": (160, ("error=EIO", "error=ENOSPC", "signal=KILL")),
    "fdatasync": (8, ("error=EIO", "error=ENOSPC", "signal=KILL")),
}
# What a writer says to PostgreSQL and hears of it. What is not sent is an error for the event loop's own pipe
# too, which no event loop survives.
POSTGRES_TALKS = {"sendto": (160, ("signal=KILL",)), "recvfrom": (160, ("error=ECONNRESET", "signal=KILL"))}


async def test_a_fault_at_a_system_call(sqlite_world: World, tmp_path: Path) -> None:
    chosen = [("pwrite64", 23, "error=ENOSPC"), ("pwrite64", 31, "signal=KILL"), ("fdatasync", 2, "error=EIO")]
    await disturbed_at(sqlite_world, tmp_path, chosen)


@pytest.mark.full
async def test_a_fault_at_each_system_call(sqlite_world: World, tmp_path: Path) -> None:
    """`make test-chaos` tries all 160."""
    await disturbed_at(sqlite_world, tmp_path, faults(SQLITE_WRITES))


@pytest.mark.full
async def test_a_fault_in_each_word_with_postgresql(postgres: PostgresServer, tmp_path: Path) -> None:
    """`make test-chaos` tries all 160."""
    await disturbed_at(World.at(postgres.new_database()), tmp_path, faults(POSTGRES_TALKS))
