"""Versions of 8 bits: what is asked of them, what is said of them, and one that NNCF makes."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib.util
import io
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from PIL import Image

import facetmesh
from facetmesh.detection import agreement, quantization
from facetmesh.detection.detector import Classification, Detection, Result
from facetmesh.detection.quantization_program import after_last_layers, make_unsigned
from facetmesh.detection.v1 import detection_pb2, model_pb2
from facetmesh.detection.versions import ClassAgreement, Quantization
from facetmesh.kit import audit, catalog
from facetmesh.kit.errors import FacetmeshError

from . import onnx_models
from .detection_world import serving
from .test_detection_intake import CAT, MODEL, upload

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from .conftest import MemoryState
    from .detection_world import World

PYTHON = catalog.cache_folder() / "quantize-env" / "bin" / "python"
SERVICES = Path(facetmesh.__file__).parents[1]
PROGRAM = Path(__file__).with_name("programs") / "quantizing.py"
DOG = (16, 16, 10, 10, 1, 0.8)
BOX = (0.0, 0.0, 10.0, 10.0)


@pytest.fixture(autouse=True)
def record() -> audit.Record:
    """The audit record of the call."""
    made = audit.Record("facetmesh.detection.v1.ModelService/QuantizeModelVersion", "tenants/acme", "tenants/acme/k/1")
    audit.set_current(made)
    return made


@pytest.fixture
async def world(state: MemoryState, tmp_path: Path) -> AsyncIterator[World]:
    """Detection without models."""
    async with serving(state, tmp_path) as made:
        yield made


def photos(count: int) -> list[bytes]:
    """So many different images."""
    files = []
    for seed in range(count):
        file = io.BytesIO()
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (64, 64, 3), np.uint8)).save(file, "PNG")
        files.append(file.getvalue())
    return files


PHOTOS = photos(24)


def seen(*objects: tuple[int, tuple[float, float, float, float]]) -> Result:
    """What a model saw."""
    return Result(tuple(Detection(box, ["cat", "dog"][at], at, 0.9) for at, box in objects), 100, 100)


def measured(*classes: ClassAgreement) -> Quantization:
    """Figures."""
    return Quantization(1, 10, 10, "00", classes)


def replaced(world: World, monkeypatch: pytest.MonkeyPatch, made: bytes) -> None:
    """Has NNCF's part give this file; all else is real."""

    async def quantize(path: Path, sha256: str, hints: Any, images: Sequence[bytes]) -> bytes:
        assert (path.name, len(sha256), hints.task) == ("source.onnx", 64, "detect")
        assert 10 <= len(images) <= 12
        return made

    monkeypatch.setattr(world.models._quantizer._workshop, "quantize", quantize)


async def quantized(world: World, images: Sequence[bytes] = PHOTOS, **more: Any) -> model_pb2.ModelVersion:
    """Asks for it."""
    request = model_pb2.QuantizeModelVersionRequest(name=f"{MODEL}/versions/1", images=images, **more)
    return await world.models.QuantizeModelVersion(request, None)


async def refusal(world: World, images: Sequence[bytes] = PHOTOS, **more: Any) -> FacetmeshError:
    """What it is refused with."""
    with pytest.raises(FacetmeshError) as caught:
        await quantized(world, images, **more)
    return caught.value


def test_agreement_is_counted_by_class() -> None:
    moved, elsewhere = (0.0, 0.0, 10.0, 6.0), (50.0, 50.0, 60.0, 60.0)
    pairs = [
        (seen((0, BOX), (1, BOX)), seen((0, moved), (1, elsewhere))),
        (seen((0, BOX)), seen()),
        (seen(), seen((1, BOX))),
    ]
    cats, dogs = agreement.by_class(pairs)
    assert cats == ClassAgreement("cat", reference=2, found=1, matched=1)
    assert dogs == ClassAgreement("dog", reference=1, found=2, matched=0)
    assert (cats.f1, dogs.f1) == (pytest.approx(2 / 3), 0)
    assert measured(cats, dogs).total == ClassAgreement("all", reference=3, found=3, matched=1)


def test_of_what_classifies_the_most_likely_class_counts() -> None:
    cat, dog = Classification("cat", 0, 0.6), Classification("dog", 1, 0.3)
    one, other = Result((), 1, 1, (cat, dog)), Result((), 1, 1, (dog, cat))
    assert agreement.by_class([(one, one), (one, other)]) == (
        ClassAgreement("cat", reference=2, found=1, matched=1), ClassAgreement("dog", reference=0, found=1, matched=0),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("classes", "reason"),
    [
        ([ClassAgreement("cat", 100, 100, 90)], ""),
        ([ClassAgreement("cat", 100, 100, 89)], "QUANTIZATION_INACCURATE"),
        # Good on the whole, and blind to one class.
        ([ClassAgreement("cat", 990, 990, 990), ClassAgreement("dog", 10, 10, 5)], "QUANTIZATION_INACCURATE"),
        # Nine dogs are too few to judge.
        ([ClassAgreement("cat", 990, 990, 990), ClassAgreement("dog", 9, 0, 0)], ""),
        # It must not see what is not there either.
        ([ClassAgreement("cat", 100, 200, 100)], "QUANTIZATION_INACCURATE"),
        ([ClassAgreement("cat", 9, 9, 9)], "QUANTIZATION_UNMEASURED"),
        ([], "QUANTIZATION_UNMEASURED"),
    ],
)
def test_what_is_good_enough(classes: list[ClassAgreement], reason: str) -> None:
    if not reason:
        quantization.check(measured(*classes), 0.9)
        return
    with pytest.raises(FacetmeshError) as caught:
        quantization.check(measured(*classes), 0.9)
    assert (caught.value.code, caught.value.reason) == ("FAILED_PRECONDITION", reason)


def test_a_refusal_has_the_figures() -> None:
    with pytest.raises(FacetmeshError, match=r"dog 0\.500 \(5 of 10\)") as caught:
        quantization.check(measured(ClassAgreement("cat", 90, 90, 90), ClassAgreement("dog", 10, 10, 5)), 0.9)
    assert caught.value.metadata == {"agreement": "0.9500", "min_agreement": "0.9000"}


async def test_a_version_is_made_and_says_of_what(
    world: World, monkeypatch: pytest.MonkeyPatch, record: audit.Record
) -> None:
    first = await upload(world, onnx_models.detector(CAT))
    replaced(world, monkeypatch, onnx_models.detector(CAT, labels=("cat", "dog")))
    made = await quantized(world)
    assert made.name == f"{MODEL}/versions/2"
    assert (made.source_sha256, made.licence, list(made.labels)) == (first.sha256, "MIT", ["cat", "dog"])
    assert made.quantization.source_version == first.name
    assert (made.quantization.calibration_image_count, made.quantization.measured_image_count) == (12, 12)
    assert (made.quantization.total.matched_count, made.quantization.total.f1) == (12, 1)
    assert [one.label for one in made.quantization.classes] == ["cat"]
    assert (record.resource, record.model_sha256) == (made.name, made.sha256)
    # It is recorded so, and answers nobody yet.
    world.domain._versions.clear()
    read = await world.models.GetModelVersion(model_pb2.GetModelVersionRequest(name=made.name), None)
    assert read == made
    assert (await world.domain.choose("acme", "pets")).number == 1
    # Again, with the images in another order, is the same; of a higher bar it would still have to be.
    assert await quantized(world, PHOTOS[::-1]) == made
    assert not list(world.clear.glob("upload_*"))


async def test_what_sees_something_else_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await upload(world, onnx_models.detector(CAT, DOG))
    replaced(world, monkeypatch, onnx_models.detector(CAT))
    error = await refusal(world)
    assert error.reason == "QUANTIZATION_INACCURATE"
    assert "dog 0.000 (0 of 12)" in error.message
    model = await world.domain.get("acme", "pets")
    assert model.versions == (1,)
    assert (await quantized(world, min_agreement=0)).quantization.total.f1 == pytest.approx(2 / 3)


async def test_what_comes_out_is_checked_like_an_upload(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await upload(world, onnx_models.detector(CAT))
    replaced(world, monkeypatch, b"PK\3\4 a zip file, say")
    assert (await refusal(world)).reason == "MODEL_UNREADABLE"


async def test_what_cannot_be_quantized(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await upload(world, onnx_models.detector(CAT))
    replaced(world, monkeypatch, onnx_models.detector(CAT))
    assert (await refusal(world, PHOTOS[:10] * 2)).reason == "TOO_FEW_IMAGES"
    assert (await refusal(world, [*PHOTOS[:-1], b"no image"])).reason == "IMAGE_NOT_RECOGNIZED"
    await quantized(world)
    again = await world.domain.version("acme", "pets", 2)
    with pytest.raises(FacetmeshError) as caught:
        await world.models._quantizer.quantize(again, PHOTOS)
    assert caught.value.reason == "QUANTIZATION_UNSUPPORTED"
    # Uploading the original again is not answered with what was made of it.
    third = await upload(world, onnx_models.detector(CAT))
    assert (third.name, third.HasField("quantization")) == (f"{MODEL}/versions/3", False)


async def test_a_tenant_has_one_at_a_time(world: World) -> None:
    await upload(world, onnx_models.detector(CAT))
    world.models._quantizer._busy.add("acme")
    assert (await refusal(world)).reason == "QUANTIZATION_RUNNING"
    world.models._quantizer._busy.clear()


async def test_an_original_without_the_signature_that_is_asked_for(world: World) -> None:
    await upload(world, onnx_models.detector(CAT))
    policy = model_pb2.ModelPolicy(name="tenants/acme/modelPolicy", signature_required=True)
    await world.models.UpdateModelPolicy(model_pb2.UpdateModelPolicyRequest(model_policy=policy), None)
    assert (await refusal(world)).reason == "SIGNATURE_REQUIRED"


async def test_an_installation_that_cannot(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await upload(world, onnx_models.detector(CAT))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert (await refusal(world)).reason == "QUANTIZE_MISSING"


def test_a_heads_arithmetic_stays_in_float() -> None:
    """YOLOv8's, in short: what is behind its last convolutions, with the one over a softmax."""
    node = helper.make_node
    nodes = [
        node("Conv", ["images", "w"], ["a"], name="backbone"), node("Sigmoid", ["a"], ["b"], name="activation"),
        node("Conv", ["b", "w"], ["box"], name="box"), node("Conv", ["b", "w"], ["class"], name="class"),
        node("Softmax", ["box"], ["c"], name="softmax"), node("Transpose", ["c"], ["d"], name="transpose"),
        node("Conv", ["d", "w"], ["e"], name="distance"), node("Sigmoid", ["class"], ["f"], name="confidence"),
        node("Concat", ["e", "f"], ["output0"], name="together", axis=1),
    ]  # fmt: skip
    model = onnx_models.build(nodes, {"output0": (1, 6, 8)})
    assert set(after_last_layers(model.graph)) == {"together", "confidence", "distance", "transpose", "softmax"}


def test_activations_become_unsigned_and_stay_the_same() -> None:
    values = np.linspace(-1, 4, 3 * 64 * 64, dtype=np.float32).reshape(1, 3, 64, 64)
    nodes = [
        helper.make_node("QuantizeLinear", ["images", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["output0"]),
    ]
    constants = {"scale": np.array(0.02, np.float32), "zero": np.array(-78, np.int8)}
    model = onnx_models.build(nodes, {"output0": (1, 3, 64, 64)}, constants=constants, opset=19)
    (before,) = ReferenceEvaluator(model).run(None, {"images": values})
    make_unsigned(model.graph)
    assert [tensor.data_type for tensor in model.graph.initializer] == [TensorProto.FLOAT, TensorProto.UINT8]
    (after,) = ReferenceEvaluator(model).run(None, {"images": values})
    assert np.array_equal(before, after)


def views(photo: bytes, count: int) -> list[bytes]:
    """So many different crops of a photo, as they would come from a camera that moves."""
    image = Image.open(io.BytesIO(photo)).convert("RGB")
    files, random = [], np.random.default_rng(7)
    for _ in range(count):
        part = random.uniform(0.7, 1.0)
        width, height = int(image.width * part), int(image.height * part)
        left, top = random.integers(0, image.width - width + 1), random.integers(0, image.height - height + 1)
        file = io.BytesIO()
        image.crop((left, top, left + width, top + height)).save(file, "JPEG", quality=90)
        files.append(file.getvalue())
    return files


@pytest.mark.full
@pytest.mark.skipif(not PYTHON.exists(), reason="`make quantize-env` makes the environment that this needs")
async def test_a_real_model_is_quantized(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By NNCF, in a process that is thrown away, under the confinement of every runner."""

    async def quantize(path: Path, sha256: str, hints: Any, images: Sequence[bytes]) -> bytes:
        """As the workshop does, in an environment that can."""
        for index, data in enumerate(images):
            (tmp_path / f"{index:03}.jpg").write_bytes(data)
        process = await asyncio.create_subprocess_exec(
            str(PYTHON), str(PROGRAM), str(path), sha256, json.dumps(dataclasses.asdict(hints)), str(tmp_path),
            env={**os.environ, "PYTHONPATH": str(SERVICES)},
        )  # fmt: skip
        async with asyncio.timeout(600):
            assert await process.wait() == 0
        return (tmp_path / "quantized.onnx").read_bytes()

    monkeypatch.setattr(world.models._quantizer._workshop, "quantize", quantize)
    original = catalog.fetch("nudenet-320n", accept_licence="AGPL-3.0")
    photo = catalog.fetch("photo-six-faces").read_bytes()
    model = model_pb2.Model(catalog_id="nudenet-320n", licence="AGPL-3.0")
    request = model_pb2.CreateModelRequest(parent="tenants/acme", model_id="pets", model=model)
    await world.models.CreateModel(request, None)
    # One class of small parts comes close to the bar.
    made = await quantized(world, views(photo, 48), min_agreement=0.8)
    assert made.quantization.total.source_count > quantization.ENOUGH
    assert made.quantization.total.f1 >= quantization.MIN_AGREEMENT
    assert made.size_bytes < original.stat().st_size / 3
    found = await world.detection.Detect(
        detection_pb2.DetectRequest(model=MODEL, image=photo, version="2"), None
    )
    assert len(found.detections) >= 5  # of its six
