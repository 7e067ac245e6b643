"""Apps as the cases see them: how they reach their sidecars, and how they take events."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc.aio
from dapr.proto import api_service_v1

from facetmesh.kit.dapr import DaprSidecar, Disposition, Event, EventReceiver
from facetmesh.kit.errors import Unavailable

DEADLINE_S = 120.0


# Below the range from which the system takes ports for outgoing connections, of which sidecars make many while others
# are still about to listen.
_PORTS = iter(random.sample(range(20_000, 32_000), 12_000))


def free_port() -> int:
    """A port that nobody listens on, and that was not given before."""
    for port in _PORTS:
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


def halt(pid: int) -> None:
    """Has a process do nothing more. A signal alone may find it busy for a moment, on a busy machine for a long one."""
    os.kill(pid, signal.SIGSTOP)
    ends = time.monotonic() + DEADLINE_S
    while not all(map(_is_stopped, Path(f"/proc/{pid}/task").iterdir())):
        assert time.monotonic() < ends, f"{pid} does not stop"
        time.sleep(0.005)


def _is_stopped(thread: Path) -> bool:
    try:
        return (thread / "stat").read_text().rpartition(")")[2].split()[0] in "TtZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


async def until(condition: Callable[[], bool], what: str, timeout_s: float = DEADLINE_S) -> None:
    """Waits for a condition; fails the test when it does not come."""
    ends = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < ends, f"not within {timeout_s} s: {what}"
        await asyncio.sleep(0.01)


@dataclass(frozen=True)
class App:
    """One replica of an app, and where its sidecar listens."""

    id: str
    grpc_port: int = field(default_factory=free_port)
    http_port: int = field(default_factory=free_port)
    callback_port: int = field(default_factory=free_port)

    @property
    def api_token(self) -> str:
        """What the sidecar asks for."""
        return f"api-token-of-{self.id}"

    @property
    def app_token(self) -> str:
        """What the app asks for."""
        return f"app-token-of-{self.id}"

    def sidecar(self, timeout_s: float = 30.0) -> DaprSidecar:
        """The kit's way to it."""
        return DaprSidecar(self.grpc_port, self.http_port, self.api_token, timeout_s=timeout_s)

    @contextlib.asynccontextmanager
    async def stub(self) -> AsyncIterator[api_service_v1.DaprStub]:
        """Dapr's own stub, without anything of ours; its calls need `metadata`."""
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.grpc_port}") as channel:
            yield api_service_v1.DaprStub(channel)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What a bare call needs."""
        return (("dapr-api-token", self.api_token),)


TOPICS = ("single", "single.dead", "bulk", "bulk.dead", "raw", "everybody")
Behaviour = Callable[[Sequence[Event]], Awaitable[Sequence[Disposition]]]


async def accept(events: Sequence[Event]) -> Sequence[Disposition]:
    """Says that all is well."""
    return [Disposition.OK] * len(events)


class Inbox:
    """An app that takes events; what it does with them, the test says.

    Args:
        app: Which.
        missed: Waits until its sidecar knows that it is away.
        topics: What it takes.
    """

    def __init__(
        self, app: App, missed: Callable[[App], Awaitable[None]], topics: Sequence[str] = TOPICS
    ) -> None:
        self.app = app
        self._missed = missed
        self._topics = topics
        self.calls: dict[str, list[list[Event]]] = defaultdict(list)
        """By topic, the events of each call."""
        self.counted: Counter[tuple[str, Disposition]] = Counter()
        """How often what became of the events of which topic."""
        self.behaviours: dict[str, Behaviour] = {}
        self._receiver: EventReceiver | None = None

    def events(self, topic: str, prefix: str = "") -> list[Event]:
        """All events of a topic so far, repeats too, whose ids begin with prefix."""
        return [event for call in self.calls[topic] for event in call if event.id.startswith(prefix)]

    def ids(self, topic: str, prefix: str = "") -> list[str]:
        """Their ids."""
        return [event.id for event in self.events(topic, prefix)]

    async def open(self) -> None:
        """Listens. Who had the port before may need a moment to let go of it."""
        ends = time.monotonic() + DEADLINE_S
        while True:
            receiver = EventReceiver(
                {topic: self._handler(topic) for topic in self._topics},
                app_api_token=self.app.app_token,
                count=lambda topic, disposition, number: self.counted.update({(topic, disposition): number}),
            )  # fmt: skip
            try:
                await receiver.serve(self.app.callback_port)
            except Unavailable:
                assert time.monotonic() < ends, "the port stays taken"
                await asyncio.sleep(0.05)
            else:
                self._receiver = receiver
                return

    async def close(self) -> None:
        """Takes no more."""
        if self._receiver is not None:
            await self._receiver.close()
            self._receiver = None
            await self._missed(self.app)

    def _handler(self, topic: str) -> Behaviour:
        async def handle(events: Sequence[Event]) -> Sequence[Disposition]:
            self.calls[topic].append(list(events))
            return await self.behaviours.get(topic, accept)(events)

        return handle
