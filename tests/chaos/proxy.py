"""What stands between a service and its sidecar, and can be as bad as a slow network or a broken program."""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

_HOST = "127.0.0.1"
_CHUNK_BYTES = 65_536


class Mood(StrEnum):
    """How what is behind it seems."""

    WELL = "well"
    SLOW = "slow"
    """Everything comes later, each way."""
    GARBAGE = "garbage"
    """Noise comes back, and nothing arrives."""


@dataclass
class Proxy:
    """Passes a port's connections on to another, while the context lasts."""

    port: int
    """Where it listens."""
    target: int
    """Where what is behind it listens."""
    delay_s: float = 1.0
    """How much later everything comes while it is SLOW, in seconds."""
    mood: Mood = Mood.WELL
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        """Listens."""
        self._server = await asyncio.start_server(self._connected, _HOST, self.port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None,
    ) -> None:
        """Ends all connections."""
        assert self._server is not None
        self._server.close()
        await self.cut()

    async def cut(self) -> None:
        """Ends the connections there are: both sides begin anew."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        writers = [writer]
        try:
            behind, other = await asyncio.open_connection(_HOST, self.target)
            writers.append(other)
            ways = [
                asyncio.create_task(self._pass(reader, other, noise_to=writer)),
                asyncio.create_task(self._pass(behind, writer, noise_to=None)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        except (OSError, asyncio.CancelledError):
            pass  # nobody is there, or the connections were cut
        finally:
            self._tasks.discard(task)
            for one in writers:
                one.close()

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, noise_to: asyncio.StreamWriter | None,
    ) -> None:
        """Passes on what comes until it ends, in order."""
        pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        writing = asyncio.create_task(self._write(pieces, writer))
        loop = asyncio.get_running_loop()
        try:
            while data := await reader.read(_CHUNK_BYTES):
                if self.mood is Mood.GARBAGE:
                    if noise_to is not None:
                        noise_to.write(os.urandom(len(data)))
                    continue
                pieces.put_nowait((loop.time() + (self.delay_s if self.mood is Mood.SLOW else 0.0), data))
        finally:
            writing.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await writing

    async def _write(self, pieces: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        while True:
            due, data = await pieces.get()
            await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
            writer.write(data)
            await writer.drain()
