"""Nothing that was acknowledged is lost, whoever is killed.

Publishers publish and write state while the sidecar, or the app that takes the
events, is killed with SIGKILL at random moments and started again. What a
publisher was told has been accepted must have been handled at the end, and what
it was told has been written must be readable.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from facetmesh.kit.dapr import Disposition, Event, Outgoing
from facetmesh.kit.errors import FacetmeshError, Unavailable

from .harness import DEADLINE_S, App, Inbox, accept, until
from .providers import BY_NAME, PROVIDERS, Embedded, Provider

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

KILLS = 3
SOME = 40
"""Events between two of them, at the least."""
PUBLISHERS = 4
CONSUMER = Path(__file__).with_name("consumer.py")


@pytest.fixture(params=PROVIDERS)
def provider(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Provider]:
    provider = BY_NAME[request.param](tmp_path, (App("one"), App("two")), resources="patient")
    yield provider
    provider.close()


class Consumer:
    """The app in its process."""

    def __init__(self, app: App, file: Path) -> None:
        self._app = app
        self._file = file
        self._process: subprocess.Popen[bytes] | None = None
        self._ids: list[str] = []
        self._read_bytes = 0

    def start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(CONSUMER), str(self._app.callback_port), str(self._file)],
            env={**os.environ, "APP_API_TOKEN": self._app.app_token},
        )

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @property
    def ended(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    def ids(self) -> list[str]:
        """What it has, repeats too."""
        if self._file.exists():
            with self._file.open("rb") as file:
                file.seek(self._read_bytes)
                whole, _, _ = file.read().rpartition(b"\n")
            self._read_bytes += len(whole) + 1 if whole else 0
            self._ids += whole.decode().split()
        return self._ids


@pytest.fixture
def consumer(provider: Provider, tmp_path: Path) -> Iterator[Consumer]:
    consumer = Consumer(provider.apps[1], tmp_path / "consumed")
    yield consumer
    consumer.kill()


class Load:
    """Publishes and writes for as long as it is told to."""

    def __init__(self, app: App, timeout_s: float = 2) -> None:
        self._app = app
        self._timeout_s = timeout_s
        self.published: set[str] = set()
        """What was accepted."""
        self.written: dict[str, bytes] = {}
        """The last value of each key that was accepted."""
        self.refused = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        stopping = asyncio.Event()
        workers = [asyncio.create_task(self._work(number, stopping)) for number in range(PUBLISHERS)]
        try:
            yield
        finally:
            stopping.set()
            await asyncio.gather(*workers)

    async def _work(self, worker: int, stopping: asyncio.Event) -> None:
        sidecar = self._app.sidecar(self._timeout_s)
        round_ = 0
        while not stopping.is_set():
            round_ += 1
            topic = ("single", "bulk")[round_ % 2]
            ids = [f"{worker}-{round_}-{n}" for n in range(10)]
            try:
                failed = await sidecar.publisher().publish_many(
                    topic, [Outgoing(event_id, event_id.encode(), {}) for event_id in ids], type="t"
                )
                self.published |= set(ids) - set(failed)
                await sidecar.state().put(f"key-{worker}", str(round_).encode())
                self.written[f"key-{worker}"] = str(round_).encode()
                await asyncio.sleep(0.02)  # the pace: no more than the app can take
            except FacetmeshError:
                self.refused += 1
                # Whether it was written is not known: the next write decides.
                self.written.pop(f"key-{worker}", None)
                await asyncio.sleep(0.02)
        await sidecar.close()


async def _some_time(progress: Callable[[], int]) -> None:
    """Waits for a moment that nobody can foresee, and for some progress."""
    before = progress() + SOME
    ends = time.monotonic() + random.uniform(0.1, 0.8)  # noqa: S311 - no secret
    await until(lambda: progress() > before and time.monotonic() > ends, "some progress")


async def _check(load: Load, provider: Provider, consumed: Consumer) -> None:
    await until(lambda: load.published <= set(consumed.ids()), "all that was accepted is handled", timeout_s=180)
    assert "given up" not in provider.logs()
    sidecar = provider.apps[0].sidecar()
    found = await sidecar.state().get_many(list(load.written))
    await sidecar.close()
    assert {key: entry.value for key, entry in found.items()} == load.written
    assert len(load.published) > KILLS * SOME


@pytest.mark.full
async def test_nothing_is_lost_when_the_sidecar_is_killed(provider: Provider, consumer: Consumer) -> None:
    provider.start()
    consumer.start()
    await provider.ready()
    load = Load(provider.apps[0])
    async with load.running():
        for _ in range(KILLS):
            await _some_time(lambda: len(load.published))
            provider.kill()
            provider.start()
            await provider.ready()
        before = len(load.published)
        await until(lambda: len(load.published) > before, "clients come back by themselves")
    assert load.refused
    await _check(load, provider, consumer)


@pytest.mark.full
async def test_nothing_is_lost_when_the_app_is_killed(provider: Provider, consumer: Consumer) -> None:
    provider.start()
    consumer.start()
    await provider.ready()
    load = Load(provider.apps[0], DEADLINE_S)
    async with load.running():
        for _ in range(KILLS):
            await _some_time(lambda: len(consumer.ids()))
            consumer.kill()
            consumer.start()
    assert not load.refused
    await _check(load, provider, consumer)


async def test_an_event_that_kills_its_app_goes_to_the_dead_letters(provider: Provider, consumer: Consumer) -> None:
    """However patient the tries are; others that came with it are handled."""
    provider.start()
    inbox = Inbox(provider.apps[0], provider.missed)
    await inbox.open()
    consumer.start()
    await provider.ready()
    sidecar = provider.apps[0].sidecar()
    ids = [f"good-{n}" for n in range(20)]
    outgoing = [Outgoing(event_id, b"x", {}) for event_id in [*ids[:10], "poison", *ids[10:]]]
    await sidecar.publisher().publish_many("bulk", outgoing, type="t")
    await sidecar.close()

    def supervised() -> bool:
        if consumer.ended:
            consumer.start()
        return inbox.ids("bulk.dead") == ["poison"] and set(ids) <= set(consumer.ids())

    await until(supervised, "the poison is given up, nothing else is", timeout_s=120)
    await inbox.close()


async def test_a_sidecar_that_is_asked_to_end_finishes_first(provider: Provider) -> None:
    provider.start()
    inbox = Inbox(provider.apps[1], provider.missed)
    await inbox.open()
    await provider.ready()
    began, go = asyncio.Event(), asyncio.Event()

    async def slow(events: Sequence[Event]) -> Sequence[Disposition]:
        began.set()
        await go.wait()
        return await accept(events)

    inbox.behaviours["single"] = slow
    sidecar = provider.apps[0].sidecar()
    await sidecar.publisher().publish("single", b"x", event_id="slow", type="t")
    await sidecar.close()
    await until(began.is_set, "the event is delivered")
    ending = asyncio.create_task(asyncio.to_thread(provider.stop))
    go.set()
    await ending
    inbox.behaviours.clear()
    provider.start()
    await provider.ready()
    sidecar = provider.apps[0].sidecar()
    await sidecar.publisher().publish("single", b"x", event_id="next", type="t")
    await sidecar.close()
    await until(lambda: "next" in inbox.ids("single"), "the queue goes on")
    if isinstance(provider, Embedded):
        assert inbox.ids("single") == ["slow", "next"]
    else:  # daprd may end before Redis knows that the first was handled
        assert set(inbox.ids("single")) == {"slow", "next"}
    await inbox.close()


async def test_a_sidecar_that_answers_nothing_keeps_nobody_waiting(provider: Provider) -> None:
    provider.start()
    await provider.ready()
    patient, sidecar = provider.apps[0].sidecar(), provider.apps[0].sidecar(timeout_s=0.5)
    await patient.state().put("k", b"before")
    with provider.suspended():
        began = time.monotonic()
        for call in (
            sidecar.state().get("k"),
            sidecar.state().put("k", b"meanwhile"),
            sidecar.publisher().publish("single", b"x", event_id="1", type="t"),
            sidecar.secrets().get("password"),
        ):
            with pytest.raises(Unavailable):
                await call
        assert time.monotonic() - began < DEADLINE_S  # without a deadline it would be for ever
        with pytest.raises(Unavailable):
            await sidecar.healthy()
    await patient.wait_ready(DEADLINE_S)
    assert await patient.state().get("k") is not None
    for one in (patient, sidecar):
        await one.close()
