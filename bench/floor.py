"""The floor: gRPC in Python around the engine in a process of its own, and nothing else.

No token, no tenant, no turn, no record, no limits, no errors: what this costs beyond the bare engine, nobody saves who
keeps native code in a process apart and speaks gRPC in Python. Whatever method is called, the message is taken for the
photo itself. `python -m bench.floor PORT` serves until it is killed.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import socket
import struct
import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

import grpc

from bench import bare, servers

if TYPE_CHECKING:
    from collections.abc import Iterator

_FRAME = struct.Struct("!IBI")
"""A call's number, on how many cores it may run, and how many bytes follow."""
_CORES = len(os.sched_getaffinity(0))
_WORK = "work"


@contextmanager
def serving() -> Iterator[dict[str, object]]:
    """Runs it; gives what `load` needs to ask it."""
    port = servers.free_port()
    process = subprocess.Popen([sys.executable, "-m", "bench.floor", str(port)])
    try:
        yield {"kind": "photo", "pid": process.pid, "address": f"127.0.0.1:{port}"}
    finally:
        process.kill()
        process.wait()


class _Handler(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Hands each call to the process, and its reply back."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._ids = itertools.count()
        self._pending: dict[int, asyncio.Future[bytes]] = {}

    def service(self, _: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        return grpc.unary_unary_rpc_method_handler(self._answer)

    async def receive(self) -> None:
        """Gives replies to those who wait for them, for ever."""
        while True:
            number, _, size = _FRAME.unpack(await self._reader.readexactly(_FRAME.size))
            self._pending.pop(number).set_result(await self._reader.readexactly(size))

    async def _answer(self, photo: bytes, _: Any) -> bytes:
        number = next(self._ids)
        cores = 1 if self._pending else _CORES
        reply = self._pending[number] = asyncio.get_running_loop().create_future()
        self._writer.writelines((_FRAME.pack(number, cores, len(photo)), photo))
        return await reply


async def _serve(port: str) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        command = [sys.executable, "-m", "bench.floor", _WORK, str(theirs.fileno())]
        await asyncio.create_subprocess_exec(*command, pass_fds=(theirs.fileno(),))
    handler = _Handler(*await asyncio.open_connection(sock=ours))
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((handler,))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await handler.receive()


def _work(sock: socket.socket) -> None:
    stream, reading, writing = sock.makefile("rb"), threading.Lock(), threading.Lock()
    wide = bare.requests(0)[0]
    for narrow in bare.requests(_CORES, copies=True):
        requests = {_CORES: wide, 1: narrow}
        threading.Thread(target=_loop, args=(sock, stream, reading, writing, requests)).start()


def _loop(
    sock: socket.socket, stream: BinaryIO, reading: threading.Lock, writing: threading.Lock, requests: dict[int, Any]
) -> None:
    while True:
        with reading:
            if not (header := stream.read(_FRAME.size)):
                return
            number, cores, size = _FRAME.unpack(header)
            photo = stream.read(size)
        answer = json.dumps([int(index) for index in bare.detect(requests[cores], photo)]).encode()
        with writing:
            sock.sendall(_FRAME.pack(number, 0, len(answer)) + answer)


if __name__ == "__main__":
    if sys.argv[1] == _WORK:
        _work(socket.socket(fileno=int(sys.argv[2])))
    else:
        asyncio.run(_serve(sys.argv[1]))
