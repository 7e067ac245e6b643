"""Was this made here: the file itself, copies of it that were saved anew, and nothing else."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from facetmesh.fusion.imprint_index import ImprintIndex
from facetmesh.fusion.lookups import FARTHEST, Fingerprints, Imprint
from facetmesh.fusion.v1 import fusion_pb2 as pb
from facetmesh.kit import catalog
from facetmesh.kit.errors import Internal, InvalidArgument
from facetmesh.kit.validation import validate
from facetmesh.runners.pool import RunnerPool
from facetmesh.runners.tasks import Reply

from .fusion_jobs import World, sha256

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from facetmesh.fusion.operations import Operation

    from .conftest import Clock, MemoryState

LOOK = "0123456789abcdef"


@pytest.fixture
def world(clock: Clock) -> World:
    """A service without work."""
    return World(clock)


async def done(world: World, **options: str) -> Operation:
    return await world.worker.work(await world.create(**options))


def flipped(look: str, bits: int) -> str:
    """The look with so many bits changed, spread over its bytes."""
    value = int(look, 16)
    for bit in range(bits):
        value ^= 1 << (bit * 9 % 64)
    return f"{value:016x}"


async def test_the_file_is_found_by_its_hash(world: World) -> None:
    made = await done(world)
    assert made.result is not None
    (match,) = await world.lookups.find("acme", sha256=made.result.sha256)
    assert (match.operation.id, match.distance) == (made.id, None)
    assert await world.lookups.find("acme", sha256=sha256(b"another")) == []
    assert await world.lookups.find("globex", sha256=made.result.sha256) == []


async def test_the_file_comes_before_what_looks_alike(world: World, clock: Clock) -> None:
    await done(world)
    clock.now += 1
    made = await done(world)
    image = (await world.fusions.download(made.ref))[1]
    first, second = await world.lookups.find("acme", image=image)
    assert (first.operation.id, first.distance) == (made.id, None)
    assert second.distance == 0
    assert await world.lookups.find("acme", image=b"unlike all of them") == []


async def test_what_an_attempt_left_is_no_fusion(world: World) -> None:
    operation = await world.create()
    await world.store.imprint("acme", Imprint(operation.id, sha256(b"lost"), LOOK))
    assert await world.lookups.find("acme", sha256=sha256(b"lost")) == []
    await world.worker.work(operation)
    assert await world.lookups.find("acme", sha256=sha256(b"lost")) == []


@pytest.mark.parametrize("bits", range(FARTHEST + 1))
async def test_all_that_is_alike_shares_a_bucket(state: MemoryState, bits: int) -> None:
    index = ImprintIndex(state)
    imprint = Imprint("0" * 32, sha256(b"file"), LOOK)
    await index.add("acme", imprint)
    assert imprint.distance(flipped(LOOK, bits)) == bits
    assert await index.near("acme", fingerprint=flipped(LOOK, bits)) == [imprint]
    assert await index.near("globex", fingerprint=LOOK) == []


async def test_a_tenants_imprints_end_with_it(world: World) -> None:
    await done(world)
    assert any("/imprints/" in key for key in world.state.entries)
    await world.store.delete_all("acme")
    assert not any("/imprints/" in key for key in world.state.entries)


@pytest.fixture
async def fingerprints() -> AsyncIterator[Fingerprints]:
    """The pipeline's program in a runner, confined as in production."""
    async with RunnerPool("facetmesh.fusion.program", readable=[]) as pool:
        yield Fingerprints(pool)


def saved(photo: str, *, scale: float = 1.0, quality: int = 80) -> bytes:
    """A photo, made smaller and saved as a JPEG."""
    with Image.open(catalog.fetch(photo)) as image:
        size = round(image.width * scale), round(image.height * scale)
        out = io.BytesIO()
        image.convert("RGB").resize(size, Image.Resampling.BICUBIC).save(out, "JPEG", quality=quality)
    return out.getvalue()


@pytest.mark.parametrize("photo", ["photo-astronaut", "photo-six-faces"])
async def test_a_picture_is_known_again_after_jpeg_80_and_halving(fingerprints: Fingerprints, photo: str) -> None:
    look = await fingerprints.of("acme", "lookups/1", catalog.fetch(photo).read_bytes())
    for copy in (saved(photo), saved(photo, scale=0.5), saved(photo, scale=0.5, quality=50)):
        again = await fingerprints.of("acme", "lookups/1", copy)
        assert Imprint("", "", look).distance(again) <= FARTHEST


async def test_different_pictures_look_different(fingerprints: Fingerprints) -> None:
    looks = [
        await fingerprints.of("acme", "lookups/1", catalog.fetch(photo).read_bytes())
        for photo in ("photo-astronaut", "photo-six-faces")
    ]
    assert Imprint("", "", looks[0]).distance(looks[1]) > 2 * FARTHEST


async def test_what_is_no_picture_is_refused(fingerprints: Fingerprints) -> None:
    with pytest.raises(InvalidArgument):
        await fingerprints.of("acme", "lookups/1", b"no picture")


async def test_a_runner_cannot_answer_what_is_no_fingerprint() -> None:
    class Odd:
        async def call(self, **_: object) -> Reply:
            return Reply({"fingerprint": "x/../y"})

    with pytest.raises(Internal) as refusal:
        await Fingerprints(Odd()).of("acme", "lookups/1", b"picture")  # type: ignore[arg-type]
    assert refusal.value.reason == "RUNNER_REPLY_INVALID"


@pytest.mark.parametrize("picture", [{}, {"sha256": "x"}, {"sha256": "A" * 64}, {"image": b""}])
def test_a_look_up_names_a_picture(picture: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument):
        validate(pb.LookUpFusionRequest(parent="tenants/acme", **picture))  # type: ignore[arg-type]
