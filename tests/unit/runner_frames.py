"""Bytes for a receiver of frames, as the event loop brings them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from facetmesh.runners.frames import Receiver


def feed(receiver: Receiver, data: bytes, *, at_a_time: int = sys.maxsize) -> None:
    """Has bytes come, so many at a time at the most."""
    while data:
        buffer = receiver.get_buffer(-1)
        count = min(len(buffer), len(data), at_a_time)
        buffer[:count], data = data[:count], data[count:]
        receiver.buffer_updated(count)
