"""The pipeline where it runs: in a runner of its own, on real files."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, NoReturn

import cv2
import numpy as np
import pytest

from facetmesh.fusion.faces import Face
from facetmesh.fusion.fuser import Fuser
from facetmesh.fusion.pipeline.rendering import Mask, Region, Rendering
from facetmesh.fusion.weights import LANDMARKS, CatalogWeights
from facetmesh.kit import catalog
from facetmesh.kit.errors import FailedPrecondition, InvalidArgument
from facetmesh.runners.images import DEFAULT_LIMITS, ImageLimits, decode, encode_jpeg
from facetmesh.runners.pool import RunnerPool

from . import fusion_world as world

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ASTRONAUT = Face((173, 83, 274, 180))
SMILES = Face((455, 306, 572, 412))


@pytest.fixture(scope="module")
def source() -> bytes:
    """The astronaut's file."""
    return catalog.fetch("photo-astronaut").read_bytes()


@pytest.fixture(scope="module")
def target() -> bytes:
    """The six faces' file."""
    return catalog.fetch("photo-six-faces").read_bytes()


@pytest.fixture
async def fuser() -> AsyncIterator[Fuser]:
    """The pipeline in a runner."""
    async with RunnerPool("facetmesh.fusion.program") as pool:
        catalog.fetch(LANDMARKS)
        yield Fuser(pool, CatalogWeights().files)


async def test_real_files_in_a_real_file_out(fuser: Fuser, source: bytes, target: bytes) -> None:
    made = await fuser.fuse("acme", "operations/1", source, ASTRONAUT, target, [SMILES])
    assert made.refused == (None,)
    assert [(model.name, model.licence) for model in made.models] == [("facemesh", "Apache-2.0")]
    pixels, before = decode(made.image), world.group()
    assert pixels.shape == before.shape
    rows, columns = np.nonzero((pixels != before).any(axis=2))
    assert len(rows) > 1000
    x_min, y_min, x_max, y_max = SMILES.box
    assert x_min - 20 < columns.min() < columns.max() < x_max + 20
    assert y_min - 20 < rows.min() < rows.max() < y_max + 20


@pytest.mark.full
async def test_a_file_larger_than_detection_takes_has_a_smaller_copy(fuser: Fuser, source: bytes) -> None:
    group = world.group()
    noise = np.random.default_rng(0).integers(0, 256, (3000, 2600, 3), np.uint8)
    noise[: group.shape[0], : group.shape[1]] = group
    made = await fuser.fuse("acme", "operations/1", source, ASTRONAUT, encode_jpeg(noise, 80), [SMILES])
    assert len(made.image) > DEFAULT_LIMITS.file_bytes > len(made.copy) > 0
    assert made.shown == made.copy
    copy = decode(made.copy).astype(np.float32)
    large = decode(made.image, ImageLimits(file_bytes=1 << 30))
    assert copy.shape == (2048, 1775, 3)
    same = cv2.resize(large, (1775, 2048), interpolation=cv2.INTER_AREA).astype(np.float32)
    x_min, y_min, x_max, y_max = (round(edge * 2048 / 3000) for edge in SMILES.box)
    assert np.abs(copy - same)[y_min:y_max, x_min:x_max].mean() < 5
    look = await fuser._runners.call(
        domain="acme", task="fingerprint", arguments={}, blobs=[made.image], subject="operations/1", timeout_s=60
    )
    assert len(look.values["fingerprint"]) == 16


async def test_known_eyes_lead_to_the_same_picture(fuser: Fuser, source: bytes, target: bytes) -> None:
    (right, left) = ((float(x), float(y)) for x, y in _eyes())
    with_eyes = Face(ASTRONAUT.box, right, left)
    pictures = [
        decode((await fuser.fuse("acme", "operations/1", source, face, target, [SMILES])).image).astype(int)
        for face in (ASTRONAUT, with_eyes)
    ]
    assert np.abs(pictures[0] - pictures[1]).mean() < 0.1


@pytest.mark.parametrize(
    ("broken", "reason"), [(b"\x89PNG\r\n\x1a\n", "IMAGE_TRUNCATED"), (b"GIF89a", "IMAGE_NOT_RECOGNIZED")]
)
@pytest.mark.parametrize("which", ["source", "target"])
async def test_a_bad_image_is_refused_by_name(
    fuser: Fuser, source: bytes, target: bytes, broken: bytes, reason: str, which: str
) -> None:
    files = {"source": source, "target": target, which: broken}
    with pytest.raises(InvalidArgument) as refusal:
        await fuser.fuse("acme", "operations/1", files["source"], ASTRONAUT, files["target"], [SMILES])
    assert (refusal.value.reason, refusal.value.metadata) == (reason, {"image": which})


async def test_a_face_that_will_not_do_is_refused_by_name(fuser: Fuser, source: bytes, target: bytes) -> None:
    profile = Face((899, 83, 1024, 198))
    with pytest.raises(InvalidArgument) as refusal:
        await fuser.fuse("acme", "operations/1", source, ASTRONAUT, target, [profile])
    assert (refusal.value.reason, refusal.value.metadata) == ("FACE_PROFILE", {"image": "target"})


async def test_all_faces_that_will_do_are_replaced_and_the_rest_is_told(
    fuser: Fuser, source: bytes, target: bytes
) -> None:
    faces = [Face((739, 379, 848, 474)), Face((899, 83, 1024, 198)), SMILES]
    made = await fuser.fuse("acme", "operations/1", source, ASTRONAUT, target, faces, leave_refused=True)
    assert made.refused == (None, "FACE_PROFILE", None)
    changed = (decode(made.image) != world.group()).any(axis=2)
    for face, reason in zip(faces, made.refused, strict=True):
        x_min, y_min, x_max, y_max = (int(edge) for edge in face.box)
        assert changed[y_min:y_max, x_min:x_max].any() == (reason is None)
    with pytest.raises(InvalidArgument) as refusal:
        await fuser.fuse("acme", "operations/1", source, ASTRONAUT, target, [faces[1]], leave_refused=True)
    assert refusal.value.reason == "FACE_PROFILE"


async def test_a_rendering_reaches_the_pipeline(fuser: Fuser, source: bytes, target: bytes) -> None:
    mouth = Rendering(Mask.REGIONS, (Region.MOUTH,))
    made = await fuser.fuse("acme", "operations/1", source, ASTRONAUT, target, [SMILES], mouth)
    changed = (decode(made.image) != world.group()).any(axis=2)
    points = world.face("photo-six-faces", world.SMILES).flat
    rows, _ = np.nonzero(changed)
    assert len(rows) > 300
    assert rows.min() > points[195, 1]  # the nose's middle


async def test_hostile_boxes_are_refusals_and_no_crash(fuser: Fuser) -> None:
    noise = encode_jpeg(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    for box in ((-1e9, -1e9, 1e9, 1e9), (1e9, 1e9, 1e9 + 100, 1e9 + 100), (50, 50, -50, -50), (0, 0, 64, 64)):
        with pytest.raises(InvalidArgument) as refusal:
            await fuser.fuse("acme", "operations/1", noise, Face(box), noise, [Face(box)])
        assert refusal.value.reason.startswith("FACE_")


async def test_a_landmark_model_that_is_not_there_is_said_so(source: bytes, target: bytes) -> None:
    def missing() -> NoReturn:
        raise FailedPrecondition("Fetch it.", reason="MODEL_NOT_FETCHED")

    async with RunnerPool("facetmesh.fusion.program") as pool:
        fuser = Fuser(pool, missing)
        with pytest.raises(FailedPrecondition):
            await fuser.fuse("acme", "operations/1", source, ASTRONAUT, target, [SMILES])


def test_the_service_loads_no_native_code() -> None:
    code = (
        "import sys, facetmesh.fusion.__main__;"
        "native = ('openvino', 'cv2', 'PIL', 'simplejpeg', 'numpy', 'onnxruntime', 'insightface');"
        "print([name for name in native if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.strip() == "[]"


def _eyes() -> np.ndarray:
    points = world.astronauts_face().flat
    return np.stack([points[[33, 133]].mean(axis=0), points[[263, 362]].mean(axis=0)])
