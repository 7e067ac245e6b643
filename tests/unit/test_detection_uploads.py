"""Files on their way in: parts, breaks, and what does not fit."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from facetmesh.detection.store import DaprStore
from facetmesh.detection.uploads import KEPT_S, MAX_UNFINISHED, Uploads
from facetmesh.kit.blobs import Blobs, open_store
from facetmesh.kit.errors import (
    Aborted,
    FacetmeshError,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
)
from facetmesh.kit.keyring import Keyring

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from .conftest import Clock, MemoryState

FILE = bytes(range(256)) * 10
SHA256 = hashlib.sha256(FILE).hexdigest()
PART = 1000


@pytest.fixture
def uploads(state: MemoryState, clock: Clock, tmp_path: Path) -> Uploads:
    """Uploads in parts of 1000 bytes, of at most 5000."""
    blobs = Blobs(open_store(str(tmp_path / "blobs")), Keyring(state, bytes(32)))
    return Uploads(DaprStore(state), blobs, clock, max_bytes=5000, part_bytes=PART)  # type: ignore[arg-type]


async def chunks(data: bytes, size: int = 300) -> AsyncIterator[bytes]:
    """The data in chunks."""
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def broken(data: bytes) -> AsyncIterator[bytes]:
    """The data in chunks, and then the connection ends."""
    async for chunk in chunks(data):
        yield chunk
    raise ConnectionResetError


async def test_a_file_comes_whole(uploads: Uploads, tmp_path: Path) -> None:
    upload = await uploads.receive(await uploads.begin("acme", SHA256, len(FILE), 0), chunks(FILE))
    assert (upload.received_bytes, upload.parts) == (len(FILE), 3)
    await uploads.assemble(upload, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == FILE
    await uploads.discard(upload)
    with pytest.raises(NotFound):
        await uploads.get("acme", SHA256)
    assert not [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()]


async def test_nothing_lies_there_in_clear(uploads: Uploads, tmp_path: Path) -> None:
    await uploads.receive(await uploads.begin("acme", SHA256, len(FILE), 0), chunks(FILE))
    stored = [path.read_bytes() for path in (tmp_path / "blobs").rglob("*") if path.is_file()]
    assert len(stored) == 3
    assert not any(FILE[:64] in data for data in stored)


async def test_a_break_costs_no_more_than_a_part(uploads: Uploads, tmp_path: Path) -> None:
    with pytest.raises(ConnectionResetError):
        await uploads.receive(await uploads.begin("acme", SHA256, len(FILE), 0), broken(FILE[:1900]))
    known = await uploads.get("acme", SHA256)
    assert known.received_bytes == 1000
    again = await uploads.begin("acme", SHA256, len(FILE), known.received_bytes)
    await uploads.assemble(await uploads.receive(again, chunks(FILE[1000:])), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == FILE


@pytest.mark.parametrize("offset", [500, 1001, len(FILE)])
async def test_a_wrong_offset_is_told_the_right_one(uploads: Uploads, offset: int) -> None:
    with pytest.raises(ConnectionResetError):
        await uploads.receive(await uploads.begin("acme", SHA256, len(FILE), 0), broken(FILE[:1900]))
    with pytest.raises(FacetmeshError) as caught:
        await uploads.begin("acme", SHA256, len(FILE), offset)
    assert caught.value.reason == "OFFSET_MISMATCH"
    assert caught.value.metadata == {"received_bytes": "1000"}


@pytest.mark.parametrize(
    ("size", "sent", "reason"),
    [(6000, FILE, "MODEL_TOO_LARGE"), (2000, FILE, "UPLOAD_TOO_LONG"), (3000, FILE, "UPLOAD_INCOMPLETE")],
)
async def test_what_does_not_fit(uploads: Uploads, size: int, sent: bytes, reason: str) -> None:
    with pytest.raises(FacetmeshError) as caught:
        await uploads.receive(await uploads.begin("acme", SHA256, size, 0), chunks(sent))
    assert caught.value.reason == reason


async def test_another_file_than_was_said_is_thrown_away(uploads: Uploads, tmp_path: Path) -> None:
    upload = await uploads.receive(await uploads.begin("acme", "0" * 64, len(FILE), 0), chunks(FILE))
    with pytest.raises(FailedPrecondition) as caught:
        await uploads.assemble(upload, tmp_path / "file")
    assert caught.value.reason == "UPLOAD_CORRUPT"
    with pytest.raises(NotFound):
        await uploads.get("acme", "0" * 64)


async def test_what_there_is_no_room_for_is_kept(uploads: Uploads, tmp_path: Path) -> None:
    upload = await uploads.receive(await uploads.begin("acme", SHA256, len(FILE), 0), chunks(FILE))
    with pytest.raises(ResourceExhausted) as caught:
        await uploads.assemble(upload, Path("/dev/full"))
    assert caught.value.reason == "MODEL_CACHE_FULL"
    await uploads.assemble(await uploads.begin("acme", SHA256, len(FILE), len(FILE)), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == FILE


async def test_who_begins_anew_leaves_nothing_of_before(uploads: Uploads, tmp_path: Path) -> None:
    """It may have come in many small parts."""
    upload = await uploads.begin("acme", SHA256, len(FILE), 0)
    for end in range(1, 50):
        with pytest.raises(InvalidArgument) as caught:
            await uploads.receive(upload, chunks(FILE[end - 1 : end]))
        assert caught.value.metadata == {"received_bytes": str(end)}
        upload = await uploads.begin("acme", SHA256, len(FILE), end)
    assert upload.parts == 49
    upload = await uploads.receive(await uploads.begin("acme", SHA256, len(FILE), 0), chunks(FILE))
    await uploads.assemble(upload, tmp_path / "file")
    await uploads.discard(upload)
    assert not [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()]


async def test_two_who_send_the_same_file_do_not_mix(uploads: Uploads) -> None:
    first = await uploads.begin("acme", SHA256, len(FILE), 0)
    second = await uploads.begin("acme", SHA256, len(FILE), 0)
    await uploads.receive(second, chunks(FILE))
    with pytest.raises(Aborted):
        await uploads.receive(first, chunks(FILE))


async def test_unfinished_ones_are_few_and_end(uploads: Uploads, clock: Clock) -> None:
    for number in range(MAX_UNFINISHED):
        await uploads.begin("acme", f"{number}" * 64, 100, 0)
    with pytest.raises(FacetmeshError) as caught:
        await uploads.begin("acme", SHA256, 100, 0)
    assert caught.value.reason == "TOO_MANY_UPLOADS"
    await uploads.begin("acme", "0" * 64, 100, 0)  # one of them, anew
    await uploads.begin("globex", SHA256, 100, 0)
    clock.now += KEPT_S + 1
    await uploads.begin("acme", SHA256, 100, 0)
    with pytest.raises(NotFound):
        await uploads.get("acme", "0" * 64)


async def test_tenants_do_not_see_each_others(uploads: Uploads) -> None:
    await uploads.begin("acme", SHA256, 100, 0)
    with pytest.raises(NotFound):
        await uploads.get("globex", SHA256)


async def test_who_never_comes_back_leaves_nothing(
    uploads: Uploads, state: MemoryState, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even what came last before a crash, of which there is no note."""

    async def crash(*_: object) -> None:
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await uploads.receive(await uploads.begin("acme", SHA256, len(FILE), 0), broken(FILE[:1900]))
    going_on = await uploads.begin("acme", SHA256, len(FILE), PART)
    with monkeypatch.context() as crashing:
        crashing.setattr(DaprStore, "put_upload", crash)
        with pytest.raises(ConnectionResetError):
            await uploads.receive(going_on, chunks(FILE[PART:]))
    clock.now += KEPT_S / 2
    await uploads.begin("globex", SHA256, len(FILE), 0)
    assert await uploads.sweep() == 0
    assert len([path for path in (tmp_path / "blobs").rglob("*") if path.is_file()]) == 2
    clock.now += KEPT_S / 2 + 1
    assert await uploads.sweep() == 1
    assert not [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()]
    assert [upload.tenant_id for upload in await DaprStore(state).everybodys_uploads()] == ["globex"]  # type: ignore[arg-type]
