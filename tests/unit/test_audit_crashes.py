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
    from collections.abc import AsyncIterator, Iterable


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


@asynccontextmanager
async def appenders() -> AsyncIterator[asyncio.subprocess.Process]:
    """What forks processes that append."""
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.unit.audit_appender", cwd=ROOT, limit=1 << 20,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        yield server
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        await server.wait()


async def killed_while_appending(
    server: asyncio.subprocess.Process, store: str, keys: Path, after_s: float
) -> list[dict[str, object]]:
    """What a process acknowledged until it was killed, at a random moment after its first commit."""
    assert server.stdin is not None
    assert server.stdout is not None

    async def heard() -> dict[str, Any]:
        assert server.stdout is not None
        line: dict[str, Any] = json.loads(await asyncio.wait_for(server.stdout.readline(), DEADLINE_S))
        return line

    server.stdin.write(f"{store}\n{keys}\n".encode())
    pid = (await heard())["pid"]
    lines = [await heard()]
    asyncio.get_running_loop().call_later(after_s, os.kill, pid, signal.SIGKILL)
    while "ended" not in lines[-1]:
        lines.append(await heard())
    assert lines.pop() == {"ended": -signal.SIGKILL}
    return lines


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
    async with appenders() as server:
        for kill in range(kills):
            after_s = random.uniform(0, 0.25)  # noqa: S311 - no secret
            promised.add(await killed_while_appending(server, world.address, keys, after_s))
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


CALLS = ("pwrite64", "fdatasync", "ftruncate", "unlink")
"""What SQLite writes with."""
STRACE = ("strace", "--seccomp-bpf", "-f", "-qq", "-o", "/dev/null")


def traceable() -> bool:
    """Whether a process may be held at its system calls here."""
    return (
        shutil.which("strace") is not None
        and subprocess.run([*STRACE, "-e", "trace=unlink", "true"], check=False, capture_output=True).returncode == 0
    )


async def disturbed(store: str, keys: Path, call: str, what: str) -> list[dict[str, object]]:
    """What a process acknowledged, one of whose system calls did not go well."""
    process = await asyncio.create_subprocess_exec(
        *STRACE, "-e", f"trace={call}", "-e", f"inject={call}:{what}",
        sys.executable, "-m", "tests.unit.audit_appender", store, str(keys), "4",
        cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL, limit=1 << 20,
    )  # fmt: skip
    out, _ = await asyncio.wait_for(process.communicate(), DEADLINE_S)
    return [json.loads(line) for line in out.splitlines(keepends=True) if line.endswith(b"\n")]


async def disturbed_at(world: World, tmp_path: Path, faults: Iterable[tuple[str, int, str]]) -> None:
    """Each fault, one after the other, on one log."""
    if not traceable():
        pytest.skip("strace cannot hold a process's system calls here")
    keys, promised = await prepared(world, tmp_path), Promised()
    promised.add(await disturbed(world.address, keys, "unlink", "error=EIO:when=999"))  # none: the log exists
    size = len(promised.ids)
    assert size
    for call, when, what in faults:
        promised.add(await disturbed(world.address, keys, call, f"{what}:when={when}"))
        assert await world.problems() == [], (call, when, what)
    await promised.holds(world)


FAULTS = ("error=EIO", "error=ENOSPC", "signal=KILL")


async def test_a_fault_at_a_system_call(sqlite_world: World, tmp_path: Path) -> None:
    chosen = [("pwrite64", 23, "error=ENOSPC"), ("pwrite64", 31, "signal=KILL"), ("fdatasync", 2, "error=EIO")]
    await disturbed_at(sqlite_world, tmp_path, chosen)


@pytest.mark.full
async def test_a_fault_at_each_system_call(sqlite_world: World, tmp_path: Path) -> None:
    """FACETMESH_FAULTS of the writes with each kind of fault, 8 by default; `make test-chaos` tries all 160."""
    count = int(os.environ.get("FACETMESH_FAULTS", "8"))
    step = max(1, 160 // count)
    faults = [
        (call, when, what)
        for call, last in (("pwrite64", 160), ("fdatasync", 8))
        for when in range(1, last, step if call == "pwrite64" else 1)
        for what in FAULTS
    ]
    await disturbed_at(sqlite_world, tmp_path, faults)
