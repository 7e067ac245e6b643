"""The log in PostgreSQL: what can happen to a server, and to one of two replicas that share it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from facetmesh.audit import watcher
from facetmesh.audit.connect import connector
from facetmesh.audit.log import Log
from facetmesh.audit.postgres import LOOK_S, REST_S, PostgresConnection
from facetmesh.kit.errors import FailedPrecondition, Unavailable
from facetmesh.verify import open_checkpoint, verify_growth

from .audit_postgres import PostgresServer, postgres_server
from .audit_world import World

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from facetmesh.audit.connection import Connection

ROOT = Path(__file__).parents[2]
DEADLINE_S = 180
TAKEOVER_S = 5.0
"""How long the log may stand still when the replica that writes dies or freezes, in seconds."""


@pytest.fixture
def world(postgres: PostgresServer) -> World:
    """Services and their keys, with a database."""
    return World.at(postgres.new_database())


@pytest.fixture
def mortal() -> Iterator[PostgresServer]:
    """A server that a test may stop."""
    with postgres_server() as server:
        yield server


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["fast", "crash"])
async def test_stopped_and_started_under_load(mortal: PostgresServer, how: signal.Signals) -> None:
    world = World.at(mortal.new_database())
    acknowledged: list[bytes] = []
    refused = asyncio.Event()
    async with world.log() as (log, store):
        first = open_checkpoint(log.checkpoint, world.verifier_key)

        async def load(until: asyncio.Event) -> None:
            waiting: list[bytes] = []
            while not until.is_set():
                waiting = waiting or [world.signed() for _ in range(20)]
                try:
                    assert await log.ingest(waiting) == [None] * 20
                except Unavailable:  # they come again, as pub/sub would bring them
                    refused.set()
                    await asyncio.sleep(0.05)
                else:
                    acknowledged.extend(waiting)
                    waiting = []

        done = asyncio.Event()
        loading = asyncio.create_task(load(done))
        await asyncio.to_thread(mortal.stop, how)
        await asyncio.wait_for(refused.wait(), DEADLINE_S)
        await asyncio.to_thread(mortal.start)
        before = len(acknowledged)
        deadline = time.monotonic() + DEADLINE_S
        while len(acknowledged) == before and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        done.set()
        await loading
        assert len(acknowledged) > before
        stored = await store.after(None, start=0, limit=1 << 30)
        assert len({one.id for one in stored}) == len(stored) == log.head.size == len(acknowledged) + 3
        last = open_checkpoint(log.checkpoint, world.verifier_key)
        verify_growth(first, last, await log.consistency(first.size, last.size))
    assert await world.problems() == []


@contextlib.asynccontextmanager
async def appender(world: World, keys: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Another replica, which appends without pause."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.unit.audit_appender", world.address, str(keys),
        cwd=ROOT, stdout=asyncio.subprocess.PIPE, limit=1 << 20,
    )  # fmt: skip
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def logged(log: Log, world: World) -> None:
    """Returns when the log has taken in another event."""
    event = world.signed()
    async with asyncio.timeout(DEADLINE_S):
        while True:
            with contextlib.suppress(Unavailable):  # it comes again, as pub/sub would bring it
                assert await log.ingest([event]) == [None]
                return


@pytest.mark.parametrize("how", [signal.SIGSTOP, signal.SIGKILL], ids=["frozen", "killed"])
async def test_another_replica_takes_over(world: World, tmp_path: Path, how: signal.Signals) -> None:
    """One that freezes, wherever it is, holds up the other for a moment, and cannot commit later."""
    for tenant in ("acme", "platform"):
        await world.keyring.encrypt(tenant, b"")
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({name: entry.value.hex() for name, entry in world.state.entries.items()}))
    async with world.log() as (log, store), appender(world, keys) as other:
        assert other.stdout is not None
        await asyncio.wait_for(other.stdout.readline(), DEADLINE_S)
        os.kill(other.pid, how)
        await logged(log, world)
        if how is signal.SIGSTOP:
            os.kill(other.pid, signal.SIGCONT)
        ids = [one.id for one in await store.after(None, start=0, limit=1 << 30)]
        assert len(set(ids)) == len(ids)
    assert await world.problems() == []


def rests_between_statements(frozen: Connection, _rows: Sequence[Sequence[object]]) -> None:
    frozen.query("UPDATE head SET size = 5")


def rests_in_a_copy(frozen: Connection, rows: Sequence[Sequence[object]]) -> None:
    frozen.insert("tiles", rows)


def rests_in_a_pipeline(frozen: Connection, rows: Sequence[Sequence[object]]) -> None:
    frozen.execute_many("INSERT INTO tiles VALUES (?, ?, ?)", rows)


@pytest.mark.parametrize(
    "rest", [rests_between_statements, rests_in_a_copy, pytest.param(rests_in_a_pipeline, marks=pytest.mark.full)]
)
async def test_a_replica_that_rests_in_a_transaction_is_thrown_out(
    world: World, rest: Callable[[Connection, Sequence[Sequence[object]]], None]
) -> None:
    """It holds the lock, as one that froze there would: the other gets it, and the first can write nothing more."""
    await world.fill(10)
    frozen, resting, thawed = world.connect(), threading.Event(), threading.Event()

    def rows() -> Iterator[Sequence[object]]:
        yield from [(9, number, bytes(9000)) for number in range(20)]
        resting.set()
        thawed.wait(DEADLINE_S)
        yield 9, 20, b""

    def freeze() -> None:
        with frozen.writing():
            rest(frozen, cast("Sequence[Sequence[object]]", rows()))
            resting.set()
            thawed.wait(DEADLINE_S)
            frozen.query("UPDATE head SET size = 6")

    freezing = asyncio.create_task(asyncio.to_thread(freeze))
    try:
        assert await asyncio.to_thread(resting.wait, DEADLINE_S)
        async with world.store() as store:
            log = await asyncio.wait_for(Log.open(store, world.keyring, world.signer, world.intake), DEADLINE_S)
            await logged(log, world)
            assert log.head.size == 14
    finally:
        thawed.set()
        with pytest.raises(Unavailable):
            await freezing
        frozen.close()
    assert await world.problems() == []


def test_the_server_ends_what_rests_soon_enough(world: World) -> None:
    """The bounds themselves, which hold however busy this machine is."""
    with closing(world.connect()) as connection:
        keepalives = "tcp_keepalives_idle", "tcp_keepalives_interval"
        settings = "idle_in_transaction_session_timeout", "lock_timeout", *keepalives
        rests, waits, idle, interval = (connection.query(f"SHOW {one}")[0][0] for one in settings)
        assert (rests, waits) == (f"{REST_S}s", f"{LOOK_S}s")
        # Through a socket file no host can vanish, so that PostgreSQL says 0.
        assert {idle, interval} <= {"0", "1"}
    assert REST_S + LOOK_S < TAKEOVER_S
    assert watcher.LEASE_S + watcher.LOOK_S < TAKEOVER_S


async def test_what_one_replica_logs_the_other_knows(world: World) -> None:
    async with world.log() as (one, _), world.log() as (other, _):
        event = world.event()
        waiting = asyncio.create_task(other.find(event.id, wait_s=DEADLINE_S))
        growing = asyncio.create_task(other.grown(other.head.size))
        await asyncio.sleep(0)
        await one.ingest([world.services["detection"].sign(event)])
        found = await waiting
        await asyncio.wait_for(growing, DEADLINE_S)
        assert found is not None
        assert found.index == 3
        assert other.checkpoint == one.checkpoint
        assert await other.consistency(3, 4) == await one.consistency(3, 4)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("mysql://u@h/d", "LOG_URL_INVALID"), ("audit.db", "LOG_URL_INVALID"),
        ("postgresql://u:secret@h/d", "LOG_URL_HAS_PASSWORD"),
        ("postgresql://u@h/d?password=secret", "LOG_URL_HAS_PASSWORD"),
    ],
)  # fmt: skip
def test_urls_that_are_refused(tmp_path: Path, url: str, reason: str) -> None:
    with pytest.raises(FailedPrecondition) as error:
        connector(tmp_path / "audit.db", url)
    assert error.value.reason == reason
    assert "secret@" not in error.value.message


def test_a_url_leads_to_postgresql(postgres: PostgresServer, tmp_path: Path) -> None:
    connection = connector(tmp_path / "audit.db", postgres.new_database())()
    assert isinstance(connection, PostgresConnection)
    connection.close()


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as error:
        PostgresConnection(f"postgresql://facetmesh@/log?host={tmp_path}")
    assert error.value.reason == "LOG_STORE_UNAVAILABLE"
