"""The frames that a runner sends: whole, however they come, and nothing else."""

from __future__ import annotations

import pytest
from tests.unit.runner_frames import feed

from facetmesh.runners import frames

_LIMITS = {"max_header_bytes": 1000, "max_blob_bytes": 300_000}
_BLOBS = [b"", b"one", b"two" * 50_000]


def _encoded(header: dict[str, object], *blobs: bytes) -> bytes:
    return b"".join(frames.encode(header, blobs))


@pytest.mark.parametrize("at_a_time", [1, 7, 65_536, 1_000_000])
async def test_frames_come_whole_however_their_bytes_do(at_a_time: int) -> None:
    came = []
    receiver = frames.Receiver(**_LIMITS)
    receiver.hand(lambda header, blobs: came.append((header, blobs)))
    feed(receiver, _encoded({"id": 1}, *_BLOBS) + _encoded({"id": 2}) + b"\0\0", at_a_time=at_a_time)
    assert came == [({"id": 1}, _BLOBS), ({"id": 2}, [])]
    receiver.connection_lost(None)
    await receiver.over


async def test_what_came_before_somebody_took_it_is_handed_on() -> None:
    """And whom it is handed to may have the next go elsewhere."""
    first, rest = [], []
    receiver = frames.Receiver(**_LIMITS)
    feed(receiver, b"".join(_encoded({"id": number}) for number in range(3)))

    def take(header: dict[str, object], _: list[bytes]) -> None:
        first.append(header["id"])
        receiver.hand(lambda header, _: rest.append(header["id"]))

    receiver.hand(take)
    assert (first, rest) == ([0], [1, 2])


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"\0\0\x03\xe9", "a header of 1001 bytes"),
        (b"\0\0\0\x02[]", "no object"),
        (b"\0\0\0\x01{", "not JSON"),
        (b"\0\0\0\x02{}", "no list of blob sizes"),
        (b'\0\0\0\x0e{"blobs":[-1]}', "no list of blob sizes"),
        (_encoded({}, bytes(300_001))[:100], "blobs of 300001 bytes"),
    ],
)
async def test_what_is_no_frame_or_too_large_ends_it_at_once(data: bytes, problem: str) -> None:
    came = []
    receiver = frames.Receiver(**_LIMITS)
    receiver.hand(lambda header, _: came.append(header))
    feed(receiver, _encoded({"id": 1}) + data)
    with pytest.raises(frames.FrameError, match=problem):
        await receiver.over
    feed(receiver, _encoded({"id": 2}))
    receiver.connection_lost(None)
    assert came == [{"id": 1}]
