"""Images are sent once and named as often as is wanted, by their own tenant, for a day."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from facetmesh.fusion import uploads as uploading
from facetmesh.fusion.image_servicer import ImageServicer
from facetmesh.fusion.purge import purge
from facetmesh.fusion.servicer import FusionServicer
from facetmesh.fusion.upload_store import DaprUploadStore
from facetmesh.fusion.uploads import KEPT_S, MAX_BYTES
from facetmesh.fusion.v1 import fusion_pb2, image_pb2
from facetmesh.kit import audit, identity
from facetmesh.kit.errors import (
    Aborted,
    FacetmeshError,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
)

from .fusion_jobs import MODEL, World, sha256

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from .conftest import Clock

FILE = b"source"
NAME = f"tenants/acme/images/{sha256(FILE)}"


@pytest.fixture
def world(clock: Clock) -> World:
    """A service without work."""
    return World(clock)


@pytest.fixture
def record() -> audit.Record:
    """The audit record of the call, which a caller of acme makes."""
    made = audit.Record("facetmesh.fusion.v1.ImageService/UploadImage", "tenants/acme", "tenants/acme/keys/k1")
    audit.set_current(made)
    identity.set_current(identity.Principal("tenants/acme/keys/k1", "tenants/acme", frozenset({"caller"})))
    return made


@pytest.fixture
def servicer(world: World, record: audit.Record) -> ImageServicer:
    """The servicer."""
    del record
    return ImageServicer(world.uploads)


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def requests(name: str, *parts: bytes) -> AsyncIterator[image_pb2.UploadImageRequest]:
    yield image_pb2.UploadImageRequest(name=name)
    for part in parts:
        yield image_pb2.UploadImageRequest(chunk=part)


def kept(world: World) -> list[bytes]:
    return [data for (_, key), data in world.blobs.blobs.items() if key.startswith("images/")]


async def reason(work: Any, error: type[FacetmeshError]) -> str:
    with pytest.raises(error) as caught:
        await work
    return caught.value.reason


async def test_what_comes_in_parts_is_one_file(servicer: ImageServicer, world: World, record: audit.Record) -> None:
    image = await servicer.UploadImage(requests(NAME, b"sou", b"rce"), None)
    assert (image.name, image.size_bytes) == (NAME, 6)
    assert image.expire_time.seconds - image.create_time.seconds == KEPT_S
    assert await servicer.GetImage(image_pb2.GetImageRequest(name=NAME), None) == image
    assert kept(world) == [FILE]
    assert (record.resource, record.inputs) == (NAME, (bytes.fromhex(sha256(FILE)),))


async def test_what_is_here_is_not_asked_for_again_and_stays_longer(world: World, clock: Clock) -> None:
    await world.uploads.receive("acme", sha256(FILE), chunks(FILE))
    clock.now += KEPT_S - 1

    async def unasked() -> AsyncIterator[bytes]:
        raise AssertionError
        yield b""

    again = await world.uploads.receive("acme", sha256(FILE), unasked())
    assert (again.created_s, again.size_bytes) == (clock.now, 6)
    clock.now += KEPT_S - 1
    assert await world.uploads.read("acme", sha256(FILE)) == FILE


async def test_a_file_that_is_another_is_not_kept(world: World) -> None:
    work = world.uploads.receive("acme", sha256(FILE), chunks(b"other"))
    assert await reason(work, InvalidArgument) == "IMAGE_CORRUPT"
    assert await reason(world.uploads.receive("acme", sha256(FILE), chunks()), InvalidArgument) == "IMAGE_CORRUPT"
    assert await reason(world.uploads.receive("acme", sha256(b""), chunks()), InvalidArgument) == "IMAGE_CORRUPT"
    assert kept(world) == []
    assert await world.uploads.ids("acme") == []


async def test_a_file_may_not_be_too_large(world: World) -> None:
    half = bytes(MAX_BYTES // 2)
    await world.uploads.receive("acme", sha256(half + half), chunks(half, half))
    work = world.uploads.receive("acme", sha256(half + half + b"1"), chunks(half, half, b"1"))
    assert await reason(work, InvalidArgument) == "IMAGE_TOO_LARGE"


async def test_a_tenant_has_so_many_at_most(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploading, "MOST", 1)
    await world.uploads.receive("acme", sha256(b"1"), chunks(b"1"))
    await world.uploads.receive("acme", sha256(b"1"), chunks(b"1"))
    await world.uploads.receive("globex", sha256(b"2"), chunks(b"2"))
    work = world.uploads.receive("acme", sha256(b"2"), chunks(b"2"))
    assert await reason(work, ResourceExhausted) == "TOO_MANY_IMAGES"
    await world.uploads.delete("acme", sha256(b"1"))
    await world.uploads.receive("acme", sha256(b"2"), chunks(b"2"))


async def test_its_day_over_it_is_gone(world: World, clock: Clock) -> None:
    await world.uploads.receive("acme", sha256(FILE), chunks(FILE))
    assert await world.uploads.sweep() == 0
    clock.now += KEPT_S
    assert await reason(world.uploads.read("acme", sha256(FILE)), NotFound) == "IMAGE_NOT_FOUND"
    assert await world.uploads.sweep() == 1
    assert kept(world) == []
    assert await world.uploads.ids("acme") == []
    assert await world.uploads.sweep() == 0


async def test_what_a_crash_left_behind_goes_too(
    world: World, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = world.blobs.put

    async def dies(tenant: str, key: str, data: bytes) -> None:
        await put(tenant, key, data)
        raise asyncio.CancelledError

    with monkeypatch.context() as patched:
        patched.setattr(world.blobs, "put", dies)
        with pytest.raises(asyncio.CancelledError):
            await world.uploads.receive("acme", sha256(FILE), chunks(FILE))
    assert await reason(world.uploads.read("acme", sha256(FILE)), NotFound) == "IMAGE_NOT_FOUND"
    clock.now += KEPT_S
    assert await world.uploads.sweep() == 1
    assert kept(world) == []
    # Or it is sent again.
    with monkeypatch.context() as patched:
        patched.setattr(world.blobs, "put", dies)
        with pytest.raises(asyncio.CancelledError):
            await world.uploads.receive("acme", sha256(FILE), chunks(FILE))
    await world.uploads.receive("acme", sha256(FILE), chunks(FILE))
    assert kept(world) == [FILE]
    assert await world.uploads.read("acme", sha256(FILE)) == FILE


async def test_what_is_uploaded_again_while_it_is_deleted_stays(
    world: World, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.uploads.receive("acme", sha256(FILE), chunks(FILE))
    clock.now += KEPT_S
    delete = world.blobs.delete

    async def meanwhile(tenant: str, key: str) -> None:
        monkeypatch.setattr(world.blobs, "delete", delete)
        await world.uploads.receive("acme", sha256(FILE), chunks(FILE))
        await delete(tenant, key)

    monkeypatch.setattr(world.blobs, "delete", meanwhile)
    assert await world.uploads.sweep() == 0
    assert await world.uploads.read("acme", sha256(FILE)) == FILE
    assert await world.uploads.ids("acme") == [sha256(FILE)]


async def test_two_who_send_the_same_do_not_mix_it_up(world: World) -> None:
    async def slow() -> AsyncIterator[bytes]:
        await world.uploads.receive("acme", sha256(FILE), chunks(FILE))
        yield FILE

    assert await reason(world.uploads.receive("acme", sha256(FILE), slow()), Aborted) == "UPLOAD_CONFLICT"
    assert await world.uploads.read("acme", sha256(FILE)) == FILE
    assert kept(world) == [FILE]


async def test_lists_are_paged_and_their_tenants_own(servicer: ImageServicer) -> None:
    for tenant, file in (("acme", b"1"), ("acme", b"2"), ("globex", b"3")):
        await servicer.UploadImage(requests(f"tenants/{tenant}/images/{sha256(file)}", file), None)
    first = await servicer.ListImages(image_pb2.ListImagesRequest(parent="tenants/acme", page_size=1), None)
    second = await servicer.ListImages(
        image_pb2.ListImagesRequest(parent="tenants/acme", page_size=1, page_token=first.next_page_token), None
    )
    names = sorted(f"tenants/acme/images/{sha256(file)}" for file in (b"1", b"2"))
    assert [first.images[0].name, second.images[0].name] == names
    assert not second.next_page_token
    await servicer.DeleteImage(image_pb2.DeleteImageRequest(name=names[0]), None)
    assert len((await servicer.ListImages(image_pb2.ListImagesRequest(parent="tenants/acme"), None)).images) == 1
    assert await reason(servicer.DeleteImage(image_pb2.DeleteImageRequest(name=names[0]), None), NotFound)


async def test_only_the_first_message_is_a_name(servicer: ImageServicer) -> None:
    async def twice() -> AsyncIterator[image_pb2.UploadImageRequest]:
        for _ in range(2):
            yield image_pb2.UploadImageRequest(name=NAME)

    assert await reason(servicer.UploadImage(twice(), None), InvalidArgument) == "NAME_REPEATED"


async def created(world: World, parent: str = "tenants/acme", **pictures: Any) -> Any:
    servicer = FusionServicer(world.fusions, world.pictures, world.links, world.lookups, lambda _: None)
    consent = (await world.consent(parent.rpartition("/")[2])).name
    fusion = fusion_pb2.Fusion(face_model=MODEL, consent=consent, **pictures)
    return await servicer.CreateFusion(fusion_pb2.CreateFusionRequest(parent=parent, fusion=fusion), None)


async def test_a_fusion_names_what_was_uploaded_and_what_was_made(world: World, record: audit.Record) -> None:
    await world.uploads.receive("acme", sha256(FILE), chunks(FILE))
    earlier = await world.worker.work(await world.create(target=b"target"))
    operation = await created(world, source_name=NAME, target_name=earlier.fusion_name)
    await world.uploads.delete("acme", sha256(FILE))
    await world.fusions.delete(earlier.ref)
    (found,) = [one for one in await world.store.refs("acme") if one.id == operation.name.rpartition("/")[2]]
    ended = await world.worker.work(await world.fusions.get(found))
    _, image = await world.fusions.download(ended.ref)
    assert image.startswith(b"source into source into target for acme marked")
    assert earlier.result is not None
    assert [one.hex() for one in record.inputs][:2] == [sha256(FILE), earlier.result.sha256]


@pytest.mark.parametrize(("name", "error"), [
    (NAME, NotFound), (f"tenants/acme/fusions/{'0' * 32}", NotFound), ("tenants/globex/images/" + "0" * 64, NotFound),
])
async def test_what_is_not_there_cannot_be_named(world: World, name: str, error: type[FacetmeshError]) -> None:
    with pytest.raises(error):
        await created(world, source_name=name, target_image=b"target")
    assert await world.store.ids("acme") == []


async def test_nobody_names_another_tenants_pictures(world: World, record: audit.Record) -> None:
    """Access rules refuse it before; a platform's admin is not kept from it by them."""
    del record
    await world.uploads.receive("acme", sha256(FILE), chunks(FILE))
    earlier = await world.worker.work(await world.create())
    for name in (NAME, earlier.fusion_name):
        with pytest.raises(NotFound):
            await created(world, "tenants/globex", source_name=name, target_image=b"target")


async def test_what_is_not_ready_cannot_be_named(world: World, record: audit.Record) -> None:
    del record
    waiting = await world.create()
    work = created(world, source_image=FILE, target_name=waiting.fusion_name)
    assert await reason(work, FailedPrecondition) == "FUSION_NOT_READY"


async def test_a_tenants_end_is_that_of_its_uploads(world: World) -> None:
    for tenant in ("acme", "globex"):
        await world.uploads.receive(tenant, sha256(FILE), chunks(FILE))
    records = DaprUploadStore(world.state)  # type: ignore[arg-type]
    await purge(world.store, world.blobs, [records], "acme")
    assert not [key for key in world.state.entries if "acme" in key]
    assert await records.everybodys() == [("globex", sha256(FILE))]
    assert [tenant for tenant, _ in world.blobs.blobs] == ["globex"]
