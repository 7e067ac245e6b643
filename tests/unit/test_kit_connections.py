"""Connections as strangers open them: many, and with calls that are cut off at once."""

from __future__ import annotations

import asyncio
import resource
import struct
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import grpc
import pytest

from facetmesh.kit import connections

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

DEADLINE_S = 30
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\4" + bytes(5)
SETTINGS, MAX_CONCURRENT_STREAMS = 4, 3


@pytest.fixture(autouse=True)
def _files() -> Iterator[None]:
    """The limit of open files is the process's."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@asynccontextmanager
async def served(calls: int = 1) -> AsyncIterator[int]:
    """A server; yields its port."""
    server = grpc.aio.server(options=connections.options(calls))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield port
    await server.stop(0)


async def settings(port: int) -> dict[int, int]:
    """What a new connection is told; none of it where it is closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(DEADLINE_S):
            writer.write(PREFACE)
            head = await reader.readexactly(9)
            assert head[3] == SETTINGS
            return dict(struct.iter_unpack(">HI", await reader.readexactly(int.from_bytes(head[:3]))))
    finally:
        writer.close()


@pytest.mark.parametrize(("calls", "streams"), [(2, connections.STREAMS), (1000, 1000)])
async def test_calls_over_one_connection_are_bounded(calls: int, streams: int) -> None:
    async with served(calls) as port:
        assert (await settings(port))[MAX_CONCURRENT_STREAMS] == streams


async def test_one_connection_too_many_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MOST", 2)
    async with served() as port:
        opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        for reader, _ in opened:  # it is served
            await reader.readexactly(1)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await settings(port)
        for _, writer in opened:
            writer.close()


async def test_an_idle_one_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "IDLE_S", 1)
    async with served() as port, asyncio.timeout(DEADLINE_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(PREFACE)
        await reader.read()  # to its end
        writer.close()


async def test_there_are_files_left_to_open() -> None:
    """Whatever the soft limit is, connections take half at most of what the system allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    allowed = dict(connections.options(1))["grpc.max_allowed_incoming_connections"]
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    assert allowed == min(connections.MOST, hard // 2)
