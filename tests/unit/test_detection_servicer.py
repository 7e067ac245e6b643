"""The service's face with everything real behind it but the mesh: the models, the runner, the photos."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
import pytest_asyncio

from facetmesh.detection.heads.geometry import overlaps
from facetmesh.detection.v1 import detection_pb2 as pb
from facetmesh.detection.v1 import model_pb2 as models_pb
from facetmesh.kit import audit, catalog, errors

from . import detection_world
from .conftest import MemoryState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from .detection_world import World

in_module = pytest.mark.asyncio(loop_scope="module")
FACES = ["FACE_FEMALE", "FACE_MALE"]
AT_ONCE_S = 10
"""A hundredth of it does; a decoder that is taken in takes minutes."""
# By nudenet's own detector, as x_min, y_min, x_max, y_max; test_detection_reference checks that it still says so.
SIX_FACES = [
    (57, 286, 176, 401), (1122, 296, 1230, 397), (739, 378, 847, 473),
    (901, 80, 1027, 199), (452, 306, 570, 413), (274, 168, 381, 272),
]  # fmt: skip


@pytest.fixture(scope="module")
def photo() -> bytes:
    """Six faces."""
    return catalog.fetch("photo-six-faces").read_bytes()


@pytest.fixture(scope="module")
def portrait() -> bytes:
    """One face, as PNG."""
    return catalog.fetch("photo-astronaut").read_bytes()


@pytest_asyncio.fixture(loop_scope="module")
async def record() -> audit.Record:
    """The audit record of the call."""
    record = audit.Record("facetmesh.detection.v1.DetectionService/Detect", "tenants/acme", "tenants/acme/keys/k1")
    audit.set_current(record)
    return record


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """The servicers, with acme's models nudenet and blaze: no test changes them."""
    audit.set_current(audit.Record("facetmesh.detection.v1.ModelService/CreateModel", "tenants/acme"))
    catalog.fetch("nudenet-320n", accept_licence="AGPL-3.0")
    for asset in ("blazeface-full", "blazeface-short", "facemesh"):
        catalog.fetch(asset)
    async with detection_world.serving(MemoryState(), tmp_path_factory.mktemp("detection")) as made:
        for model_id, catalog_id, licence in (("nudenet", "nudenet-320n", "AGPL-3.0"), ("blaze", "blazeface-full", "")):
            await made.models.CreateModel(creation(model_id, catalog_id, licence), None)
        yield made


@pytest.fixture
def world(served: World, record: audit.Record) -> World:
    """They, in a call."""
    del record
    return served


def creation(model_id: str, catalog_id: str, licence: str = "") -> models_pb.CreateModelRequest:
    """A request for a model of acme's."""
    model = models_pb.Model(catalog_id=catalog_id, licence=licence)
    return models_pb.CreateModelRequest(parent="tenants/acme", model_id=model_id, model=model)


def request(image: bytes, model: str = "nudenet", **options: object) -> pb.DetectRequest:
    """A request of acme's."""
    return pb.DetectRequest(model=f"tenants/acme/models/{model}", image=image, **options)  # type: ignore[arg-type]


def corners(found: pb.Detection) -> tuple[float, float, float, float]:
    """Its box."""
    return found.box.x_min, found.box.y_min, found.box.x_max, found.box.y_max


def paired(found: pb.DetectResponse, expected: list[tuple[float, ...]]) -> list[float]:
    """For each expected box, how well the best of those found covers it; each is used once."""
    left = [corners(detection) for detection in found.detections]
    assert len(left) == len(expected)
    scores = []
    for box in expected:
        covered = overlaps(np.array(box, np.float32), np.array(left, np.float32))
        left.pop(int(covered.argmax()))
        scores.append(float(covered.max()))
    return scores


@in_module
async def test_six_faces(world: World, photo: bytes, record: audit.Record) -> None:
    """As the model's own publisher finds them; and the record says what was done."""
    response = await world.detection.Detect(request(photo, labels=FACES), None)
    assert min(paired(response, SIX_FACES)) > 0.75
    assert {found.label for found in response.detections} <= set(FACES)
    confidences = [found.confidence for found in response.detections]
    assert confidences == sorted(confidences, reverse=True)
    assert (response.image_width, response.image_height) == (1280, 886)
    assert response.model_version == "tenants/acme/models/nudenet/versions/1" == record.model_version
    assert record.model_sha256 == catalog.ASSETS["nudenet-320n"].sha256
    assert record.inputs == (hashlib.sha256(photo).digest(),)
    assert response.receipt == record.receipt == f"tenants/acme/receipts/{record.id}"
    response.ClearField("receipt")
    assert record.output == hashlib.sha256(response.SerializeToString(deterministic=True)).digest()


@in_module
async def test_faces_with_their_points(world: World, photo: bytes, portrait: bytes) -> None:
    """BlazeFace: the same six, and eyes where they are."""
    response = await world.detection.Detect(request(photo, "blaze", min_confidence=0.5), None)
    assert min(paired(response, SIX_FACES)) > 0.5
    (face,) = (await world.detection.Detect(request(portrait, "blaze", min_confidence=0.5), None)).detections
    points = {point.label: (point.x, point.y) for point in face.keypoints}
    # The subject's right eye is on the picture's left. Places read off the photo.
    for name, place in {"right_eye": (204, 104), "left_eye": (247, 106), "nose_tip": (229, 124)}.items():
        assert points[name] == pytest.approx(place, abs=8)
    assert face.label == "face"


@in_module
async def test_options(world: World, photo: bytes) -> None:
    """Each has its effect."""
    everything = await world.detection.Detect(request(photo), None)
    assert {found.label for found in everything.detections} - set(FACES)
    sure = await world.detection.Detect(request(photo, labels=FACES, min_confidence=0.6), None)
    assert 0 < len(sure.detections) < 6
    assert all(found.confidence >= 0.6 for found in sure.detections)
    few = await world.detection.Detect(request(photo, labels=FACES, max_detections=2), None)
    assert len(few.detections) == 2
    crowded = await world.detection.Detect(request(photo, labels=FACES, iou_threshold=1.0), None)
    assert len(crowded.detections) > 20


@pytest.mark.parametrize(
    ("model", "code", "reason"),
    [({"labels": ["CAT"]}, "INVALID_ARGUMENT", "UNKNOWN_LABEL"), ({"model": "nope"}, "NOT_FOUND", "MODEL_NOT_FOUND")],
)
@in_module
async def test_wrong_requests(
    world: World, photo: bytes, model: dict[str, str], code: str, reason: str
) -> None:
    """Each with its own reason."""
    with pytest.raises(errors.FacetmeshError) as caught:
        await world.detection.Detect(request(photo, **model), None)  # type: ignore[arg-type]
    assert (caught.value.code, caught.value.reason) == (code, reason)


@in_module
async def test_bad_images_are_refused_at_once(world: World, photo: bytes) -> None:
    """And the next good one is served by the same process."""
    huge = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + (60_000).to_bytes(4, "big") * 2 + b"\x08\x02\x00\x00\x00"
    for image, reason in (
        (b"not an image", "IMAGE_NOT_RECOGNIZED"), (photo[: len(photo) // 2], "IMAGE_TRUNCATED"),
        (huge, "IMAGE_TOO_LARGE"), (bytes(20_000_000), "IMAGE_NOT_RECOGNIZED"),
    ):  # fmt: skip
        times = []
        for _ in range(3):  # the machine may be busy with other things
            began = time.perf_counter()
            with pytest.raises(errors.InvalidArgument) as caught:
                await world.detection.Detect(request(image), None)
            assert caught.value.reason == reason
            times.append(time.perf_counter() - began)
        assert min(times) < AT_ONCE_S
    assert (await world.detection.Detect(request(photo), None)).detections


@in_module
async def test_models_are_read_and_listed(world: World) -> None:
    """In the order of their ids, a page at a time."""
    model = await world.models.GetModel(models_pb.GetModelRequest(name="tenants/acme/models/nudenet"), None)
    assert model.labels[1] == "FACE_FEMALE"
    assert len(model.labels) == 18
    assert model.create_time.seconds > 0
    first = await world.models.ListModels(models_pb.ListModelsRequest(parent="tenants/acme", page_size=1), None)
    second = await world.models.ListModels(
        models_pb.ListModelsRequest(parent="tenants/acme", page_size=1, page_token=first.next_page_token), None
    )
    names = [m.name.rpartition("/")[2] for m in (*first.models, *second.models)]
    assert names == ["blaze", "nudenet"]
    assert second.models[0] == model
    assert not second.next_page_token


@in_module
async def test_a_model_that_detects_nothing_is_refused(world: World) -> None:
    """FaceMesh has landmarks, and no boxes."""
    with pytest.raises(errors.FailedPrecondition) as caught:
        await world.models.CreateModel(creation("mesh", "facemesh"), None)
    assert caught.value.reason == "MODEL_UNSUPPORTED"


def test_the_service_loads_no_native_engine_or_decoder() -> None:
    """They live in runners; the service must not die of them."""
    code = (
        "import sys, facetmesh.detection.__main__\n"
        "print([name for name in ('openvino', 'cv2', 'PIL', 'simplejpeg', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.strip() == "[]"
