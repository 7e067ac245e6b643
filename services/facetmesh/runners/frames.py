"""The frames that a runner and its parent exchange over a socket.

    4 bytes    length of the header, big endian
    header     JSON object; its "blobs" lists the blobs' lengths
    blobs      one after the other

Never pickle: the parent takes what comes from a child for hostile.
"""

from __future__ import annotations

import asyncio
import json
import re
import struct
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping, Sequence

_SURROGATE = re.compile(rb"\\u[dD]")
_LENGTH = struct.Struct("!I")
_CHUNK_BYTES = 64 << 10
_written = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode


class FrameError(Exception):
    """The other side sent what is no frame, or too large a one."""


def encode(header: Mapping[str, Any], blobs: Sequence[bytes] = ()) -> list[bytes]:
    """Returns a frame's parts, to be written in this order.

    Raises:
        ValueError: The header holds what JSON cannot, such as NaN.
        TypeError: The header holds what is not JSON.
    """
    text = _written({**header, "blobs": [len(blob) for blob in blobs]}).encode()
    return [_LENGTH.pack(len(text)) + text, *blobs]


class Receiver(asyncio.BufferedProtocol):
    """Takes the frames that a child sends, and hands each on as its last byte comes.

    It reads into memory of its own: what asyncio asks the system for with each read of a stream costs more than the
    rest of a short reply.

    Args:
        max_header_bytes: What a header may have.
        max_blob_bytes: What the blobs of a frame may have together.
    """

    def __init__(self, *, max_header_bytes: int, max_blob_bytes: int) -> None:
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the other side is gone; it raises FrameError if that sent what is no frame, or too large a one."""
        self._limits = max_header_bytes, max_blob_bytes
        self._chunk = bytearray(_CHUNK_BYTES)
        self._left = bytearray()
        """What came and was not handed on."""
        self._header: tuple[dict[str, Any], list[int]] | None = None
        """That of a frame whose blobs have not come, and their sizes."""
        self._take: Callable[[dict[str, Any], list[bytes]], None] | None = None

    def hand(self, take: Callable[[dict[str, Any], list[bytes]], None]) -> None:
        """Hands on each frame's header, without "blobs", and its blobs, from now on; `take` may raise FrameError."""
        self._take = take
        self._hand()

    def get_buffer(self, _: int) -> bytearray:
        """Where the next bytes go."""
        return self._chunk

    def buffer_updated(self, count: int) -> None:
        """Takes the bytes that have come."""
        if not self.over.done():
            self._left += memoryview(self._chunk)[:count]
            self._hand()

    def connection_lost(self, _: Exception | None) -> None:
        """No more will come."""
        if not self.over.done():
            self.over.set_result(None)

    def _hand(self) -> None:
        if self._take is None:
            return
        try:
            while not self.over.done() and (frame := self._next()) is not None:
                self._take(*frame)
        except FrameError as error:
            self.over.set_exception(error)

    def _next(self) -> tuple[dict[str, Any], list[bytes]] | None:
        """The next frame, if it is there."""
        if self._header is None:
            self._header = self._next_header()
        if self._header is None:
            return None
        header, sizes = self._header
        if len(self._left) < sum(sizes):
            return None
        self._header = None
        return header, [self._cut(size) for size in sizes]

    def _next_header(self) -> tuple[dict[str, Any], list[int]] | None:
        if len(self._left) < _LENGTH.size:
            return None
        (size,) = _LENGTH.unpack_from(self._left)
        max_header_bytes, max_blob_bytes = self._limits
        if size > max_header_bytes:
            raise FrameError(f"a header of {size} bytes")
        if len(self._left) < _LENGTH.size + size:
            return None
        header = _header(self._cut(_LENGTH.size + size)[_LENGTH.size :])
        sizes = header.pop("blobs", None)
        if not isinstance(sizes, list) or not all(type(size) is int and size >= 0 for size in sizes):
            raise FrameError("no list of blob sizes")
        if sum(sizes) > max_blob_bytes:
            raise FrameError(f"blobs of {sum(sizes)} bytes")
        return header, sizes

    def _cut(self, size: int) -> bytes:
        taken = bytes(memoryview(self._left)[:size])
        del self._left[:size]
        return taken


def receive(stream: BinaryIO) -> tuple[dict[str, Any], list[bytes]] | None:
    """Returns the next frame's header, without "blobs", and its blobs; None when the other side is gone.

    For the child: it trusts its parent, so nothing is limited.
    """
    length = stream.read(_LENGTH.size)
    if len(length) < _LENGTH.size:
        return None
    header = _header(stream.read(_LENGTH.unpack(length)[0]))
    blobs = [stream.read(size) for size in header.pop("blobs")]
    return header, blobs


def send(sock: socket.socket, parts: Sequence[bytes]) -> None:
    """Writes a frame's parts."""
    for part in parts:
        sock.sendall(part)


def _header(text: bytes) -> dict[str, Any]:
    try:
        header = _read_json(text.decode())
        if _SURROGATE.search(text):
            json.dumps(header, ensure_ascii=False).encode()  # raises for half a character, which nobody could be sent
    except (ValueError, RecursionError) as error:
        raise FrameError("a header that is not JSON") from error
    if not isinstance(header, dict):
        raise FrameError("a header that is no object")
    return header


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_read_json = json.JSONDecoder(parse_constant=_no_constant).decode
