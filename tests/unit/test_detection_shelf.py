"""Where files of models are: encrypted in blobs, and in clear where only their tenant's processes can read them."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from facetmesh.detection.shelf import Shelf
from facetmesh.detection.uploads import PART_BYTES
from facetmesh.detection.versions import Facts, Version
from facetmesh.kit import catalog
from facetmesh.kit.blobs import Blobs, open_store
from facetmesh.kit.errors import FacetmeshError, InvalidArgument
from facetmesh.kit.keyring import Keyring
from facetmesh.runners import landlock
from facetmesh.runners.pool import RunnerPool

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Clock, MemoryState


@pytest.fixture
def shelf(state: MemoryState, clock: Clock, tmp_path: Path) -> Shelf:
    """A shelf with room for 250 bytes."""
    (tmp_path / "clear").mkdir()
    blobs = Blobs(open_store(str(tmp_path / "blobs")), Keyring(state, bytes(32)))
    return Shelf(catalog, blobs, tmp_path / "clear", incoming=blobs, max_bytes=250, clock=clock)


async def stored(shelf: Shelf, tmp_path: Path, data: bytes, tenant_id: str = "acme") -> Version:
    """A version whose file is kept."""
    path = tmp_path / "file"
    path.write_bytes(data)
    facts = Facts(("a",), "detect", 64, 64)
    version = Version(tenant_id, "m", 1, hashlib.sha256(data).hexdigest(), len(data), "MIT", facts, 0.0)
    placed = shelf.placed(version)
    await shelf.store(placed, path)
    return placed


async def test_a_file_comes_back_into_its_tenants_folder(shelf: Shelf, tmp_path: Path) -> None:
    one = await stored(shelf, tmp_path, b"x" * 100)
    other = await stored(shelf, tmp_path, b"x" * 100, "globex")
    path = await shelf.path(one)
    assert path.read_bytes() == b"x" * 100
    assert path.parent == shelf.readable("acme")
    assert (await shelf.path(other)).parent == shelf.readable("globex")
    assert await shelf.path(one) == path


async def test_what_was_changed_is_not_run(shelf: Shelf, tmp_path: Path) -> None:
    version = await stored(shelf, tmp_path, b"x" * 100)
    with pytest.raises(FacetmeshError) as caught:
        await shelf.path(replace(version, sha256="0" * 64))
    assert caught.value.reason == "MODEL_CHANGED"
    assert not list(shelf.readable("acme").iterdir())


async def test_what_is_not_used_makes_room(shelf: Shelf, tmp_path: Path, clock: Clock) -> None:
    versions = [await stored(shelf, tmp_path, bytes([number]) * 100) for number in range(3)]
    first = await shelf.path(versions[0])
    await shelf.path(versions[1])
    with pytest.raises(FacetmeshError) as caught:  # both may be about to be opened
        await shelf.path(versions[2])
    assert caught.value.reason == "MODEL_CACHE_FULL"
    clock.now += 61
    await shelf.path(versions[1])
    await shelf.path(versions[2])
    assert not first.exists()
    clock.now += 61
    assert (await shelf.path(versions[0])).exists()  # again, from the blobs


async def test_what_is_deleted_lies_nowhere(shelf: Shelf, tmp_path: Path) -> None:
    one, other = [await stored(shelf, tmp_path, data * 100) for data in (b"x", b"y")]
    paths = [await shelf.path(one), await shelf.path(other)]
    await shelf.remove(one)
    assert [path.exists() for path in paths] == [False, True]
    shelf.clear("globex")
    assert paths[1].exists()
    shelf.clear("acme")
    assert not paths[1].exists()
    assert (await shelf.path(other)).read_bytes() == b"y" * 100


async def test_what_cannot_be_kept_leaves_nothing(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller goes away between two parts."""
    put, parts = shelf._blobs.put, 0

    async def cut_off(tenant: str, key: str, data: bytes) -> None:
        nonlocal parts
        await put(tenant, key, data)
        parts += 1
        if parts == 2:
            raise asyncio.CancelledError

    monkeypatch.setattr(shelf._blobs, "put", cut_off)
    with pytest.raises(asyncio.CancelledError):
        await stored(shelf, tmp_path, bytes(3 * PART_BYTES))
    assert parts == 2
    assert not [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()]


@pytest.mark.skipif(not landlock.version(), reason="this kernel has no Landlock")
async def test_a_process_reads_its_own_tenants_files_only(shelf: Shelf, tmp_path: Path) -> None:
    """Whatever it is told to open: here by the mistake, or the malice, of its parent."""
    paths = [await shelf.path(await stored(shelf, tmp_path, b"x" * 100, tenant)) for tenant in ("acme", "globex")]
    async with RunnerPool("tests.unit.programs.reading", readable=lambda domain: [shelf.readable(domain)]) as pool:

        async def read(tenant: str, path: Path) -> bytes:
            reply = await pool.call(domain=tenant, task="read", arguments={"path": str(path)}, subject="x")
            return reply.blobs[0]

        for tenant, own, others in (("acme", *paths), ("globex", *reversed(paths))):
            assert await read(tenant, own) == b"x" * 100
            with pytest.raises(InvalidArgument) as caught:
                await read(tenant, others)
            assert caught.value.reason == "NOT_READABLE"
