"""The frames that a runner and its parent exchange over a socket.

    4 bytes    length of the header, big endian
    header     JSON object; its "blobs" lists the blobs' lengths
    blobs      one after the other

Never pickle: the parent takes what comes from a child for hostile.
"""

from __future__ import annotations

import json
import re
import struct
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    import asyncio
    import socket
    from collections.abc import Mapping, Sequence

_SURROGATE = re.compile(rb"\\u[dD]")
_LENGTH = struct.Struct("!I")
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


async def read(
    reader: asyncio.StreamReader, *, max_header_bytes: int, max_blob_bytes: int
) -> tuple[dict[str, Any], list[bytes]]:
    """Returns the next frame's header, without "blobs", and its blobs.

    Raises:
        FrameError: It is no frame, or too large a one.
        asyncio.IncompleteReadError: The other side is gone.
    """
    (size,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    if size > max_header_bytes:
        raise FrameError(f"a header of {size} bytes")
    header = _header(await reader.readexactly(size))
    sizes = header.pop("blobs", None)
    if not isinstance(sizes, list) or not all(type(size) is int and size >= 0 for size in sizes):
        raise FrameError("no list of blob sizes")
    if sum(sizes) > max_blob_bytes:
        raise FrameError(f"blobs of {sum(sizes)} bytes")
    return header, [await reader.readexactly(size) for size in sizes]


def receive(stream: BinaryIO) -> tuple[dict[str, Any], list[bytes]] | None:
    """Returns the next frame as `read` does, or None when the other side is gone.

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
