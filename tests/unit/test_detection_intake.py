"""How models come in: real files, looked at in real processes that are thrown away."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from onnx import TensorProto, helper

from facetmesh.detection import models
from facetmesh.detection.signatures import CONTEXT
from facetmesh.detection.v1 import detection_pb2, model_pb2
from facetmesh.detection.versions import Facts
from facetmesh.kit import audit, catalog
from facetmesh.kit.errors import Aborted, FacetmeshError, FailedPrecondition
from facetmesh.kit.profiles import Profile, Unlimited

from . import onnx_models
from .detection_world import serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    import onnx

    from .conftest import MemoryState
    from .detection_world import World

MODEL = "tenants/acme/models/pets"
CAT = (32, 32, 20, 10, 0, 0.9)
PIXELS = detection_pb2.Pixels(height=128, width=128, rgb=bytes(3 * 128 * 128))


@pytest.fixture(autouse=True)
def record() -> audit.Record:
    """The audit record of the call."""
    made = audit.Record("facetmesh.detection.v1.ModelService/UploadModel", "tenants/acme", "tenants/acme/keys/k1")
    audit.set_current(made)
    return made


@pytest.fixture
async def world(state: MemoryState, tmp_path: Path) -> AsyncIterator[World]:
    """Detection without models."""
    async with serving(state, tmp_path) as made:
        yield made


def spec(file: bytes, **more: Any) -> model_pb2.UploadSpec:
    """What is said of a file."""
    fields: dict[str, Any] = {
        "model": MODEL, "sha256": hashlib.sha256(file).hexdigest(), "size_bytes": len(file), "licence": "MIT",
    }  # fmt: skip
    return model_pb2.UploadSpec(**{**fields, **more})


async def requests(what: model_pb2.UploadSpec, file: bytes) -> AsyncIterator[model_pb2.UploadModelRequest]:
    """An upload as it comes over the wire."""
    yield model_pb2.UploadModelRequest(spec=what)
    for start in range(what.offset, len(file), 100_000):
        yield model_pb2.UploadModelRequest(chunk=file[start : start + 100_000])


async def upload(world: World, file: bytes, **more: Any) -> model_pb2.ModelVersion:
    """Uploads a file."""
    return await world.models.UploadModel(requests(spec(file, **more), file), None)


async def detect(world: World, version: str = "") -> detection_pb2.DetectResponse:
    """What the model sees."""
    request = detection_pb2.DetectRequest(model=MODEL, pixels=PIXELS, version=version)
    return await world.detection.Detect(request, None)


async def refusal(world: World, file: bytes, **more: Any) -> FacetmeshError:
    """What an upload is refused with."""
    with pytest.raises(FacetmeshError) as caught:
        await upload(world, file, **more)
    return caught.value


async def test_a_model_is_uploaded_and_answers(world: World, record: audit.Record) -> None:
    file = onnx_models.detector(CAT)
    version = await upload(world, file)
    assert version.name == f"{MODEL}/versions/1"
    assert (version.task, list(version.labels)) == (model_pb2.TASK_DETECT, ["cat", "dog"])
    assert (version.input_height, version.input_width, version.size_bytes) == (64, 64, len(file))
    assert version.sha256 == version.source_sha256 == hashlib.sha256(file).hexdigest() == record.model_sha256
    response = await detect(world)
    (found,) = response.detections
    assert found.label == "cat"
    # In pixels of the image, which is twice the model's input.
    assert (found.box.x_min, found.box.y_min, found.box.x_max, found.box.y_max) == (44, 54, 84, 74)
    assert response.model_version == version.name
    stored = [path.read_bytes() for path in world.blobs.rglob("*") if path.is_file()]
    assert stored
    assert not any(b"images" in data for data in stored)
    # The transfer is forgotten, and nothing of it is left but the version.
    with pytest.raises(FacetmeshError):
        await world.models.GetUpload(model_pb2.GetUploadRequest(name=f"tenants/acme/uploads/{version.sha256}"), None)


async def test_versions_stand_side_by_side(world: World) -> None:
    await upload(world, onnx_models.detector(CAT))
    again = await upload(world, onnx_models.detector(CAT))
    assert again.name.endswith("/1")  # the newest is made of that file
    await upload(world, onnx_models.detector((32, 32, 20, 10, 1, 0.8)))
    assert [found.label for found in (await detect(world)).detections] == ["cat"]
    assert [found.label for found in (await detect(world, "2")).detections] == ["dog"]
    listed = await world.models.ListModelVersions(model_pb2.ListModelVersionsRequest(parent=MODEL, page_size=1), None)
    assert [one.name for one in listed.model_versions] == [f"{MODEL}/versions/2"]
    assert listed.next_page_token
    model = await world.models.GetModel(model_pb2.GetModelRequest(name=MODEL), None)
    model.aliases["canary"] = "2"
    model.aliases["stable"] = "2"
    moved = await world.models.UpdateModel(model_pb2.UpdateModelRequest(model=model), None)
    assert (dict(moved.aliases), moved.version) == ({"stable": "2", "canary": "2"}, f"{MODEL}/versions/2")
    with pytest.raises(FacetmeshError) as caught:  # its etag is that of before
        await world.models.UpdateModel(model_pb2.UpdateModelRequest(model=model), None)
    assert caught.value.reason == "ETAG_MISMATCH"
    assert [found.label for found in (await detect(world, "canary")).detections] == ["dog"]
    await world.models.DeleteModelVersion(model_pb2.DeleteModelVersionRequest(name=f"{MODEL}/versions/1"), None)
    await world.models.DeleteModel(model_pb2.DeleteModelRequest(name=MODEL), None)
    assert not [path for path in world.blobs.rglob("*") if path.is_file()]


async def test_a_shadow_is_compared_and_never_answers(world: World) -> None:
    await upload(world, onnx_models.detector(CAT))
    await upload(world, onnx_models.detector((32, 32, 20, 10, 1, 0.8)))
    model = await world.models.GetModel(model_pb2.GetModelRequest(name=MODEL), None)
    model.traffic.shadow_version, model.traffic.shadow_percent = "2", 100
    await world.models.UpdateModel(model_pb2.UpdateModelRequest(model=model), None)
    for _ in range(3):
        assert [found.label for found in (await detect(world)).detections] == ["cat"]
    await world.detection._answers.settled()
    tally = world.statistics.of("tenants/acme/models/pets/versions/2")
    assert (tally.compared, tally.agreement, tally.succeeded) == (3, 0.0, 3)


async def test_each_task_has_its_answer(world: World) -> None:
    """Found from the model's shapes, and its metadata where those do not tell."""
    boxes = np.zeros((1, 38, 8), np.float32)
    boxes[0, :7, 0] = (32, 32, 32, 32, 0.9, 0, 1)
    file = onnx_models.giving({"a": boxes, "b": np.ones((1, 32, 16, 16), np.float32)})
    assert (await upload(world, file)).task == model_pb2.TASK_SEGMENT
    (found,) = (await detect(world)).detections
    assert (found.mask.height, found.mask.width) == (128, 128)
    assert found.mask.counts
    rotated = np.zeros((1, 7, 8), np.float32)
    rotated[0, :, 0] = (32, 32, 20, 10, 0.9, 0, 0.5)
    await upload(world, onnx_models.giving({"a": rotated}), task=model_pb2.TASK_OBB)
    (found,) = (await detect(world, "2")).detections
    assert (found.rotated_box.width, found.rotated_box.angle_rad) == (40, 0.5)
    await upload(world, onnx_models.giving({"a": np.array([[0.1, 0.6]])}, metadata={"names": "{0: 'cat', 1: 'dog'}"}))
    (likely,) = (await detect(world, "3")).classifications
    assert (likely.label, likely.class_id) == ("dog", 1)


async def test_the_file_is_ready_again_after_a_restart(world: World, state: MemoryState, tmp_path: Path) -> None:
    await upload(world, onnx_models.detector(CAT))
    (tmp_path / "clear").rename(tmp_path / "gone")
    async with serving(state, tmp_path) as again:
        assert [found.label for found in (await detect(again)).detections] == ["cat"]


async def test_labels_and_size_can_be_given(world: World) -> None:
    rows = np.zeros((1, 6, 8), np.float32)
    rows[0, :, 0] = (32, 32, 20, 10, 0.9, 0)
    version = await upload(world, onnx_models.giving({"output0": rows}), labels=["hat", "coat"])
    assert list(version.labels) == ["hat", "coat"]
    assert [found.label for found in (await detect(world)).detections] == ["hat"]


async def test_the_policy_asks_for_signatures(world: World) -> None:
    key, file = Ed25519PrivateKey.generate(), onnx_models.detector(CAT)
    policy = model_pb2.ModelPolicy(name="tenants/acme/modelPolicy", signature_required=True)
    policy.signing_keys.add(id="build", public_key=key.public_key().public_bytes_raw())
    await world.models.UpdateModelPolicy(model_pb2.UpdateModelPolicyRequest(model_policy=policy), None)
    signature = key.sign(CONTEXT + hashlib.sha256(file).digest())
    other = Ed25519PrivateKey.generate().sign(CONTEXT + hashlib.sha256(file).digest())
    assert (await refusal(world, file)).reason == "SIGNATURE_REQUIRED"
    assert (await refusal(world, file, signature=other)).reason == "SIGNATURE_INVALID"
    assert (await refusal(world, file, signature=key.sign(hashlib.sha256(file).digest()))).reason == "SIGNATURE_INVALID"
    assert (await upload(world, file, signature=signature)).signing_key_id == "build"


async def test_what_the_tenant_may_not_have(state: MemoryState, tmp_path: Path) -> None:
    careful = Unlimited(Profile(allowed_models=("pets*",)))
    async with serving(state, tmp_path, profiles=careful) as world:
        file = onnx_models.detector(CAT)
        assert (await refusal(world, file, licence="AGPL-3.0")).reason == "LICENCE_NOT_ALLOWED"
        assert (await refusal(world, file, model="tenants/acme/models/cars")).reason == "MODEL_NOT_ALLOWED"
        assert (await upload(world, file)).licence == "MIT"


def loop() -> onnx.NodeProto:
    """A loop without end."""
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Identity", ["x"], ["y"])], "body",
        [info("i", TensorProto.INT64, []), info("go", TensorProto.BOOL, []), info("x", TensorProto.FLOAT, [1])],
        [info("on", TensorProto.BOOL, []), info("y", TensorProto.FLOAT, [1])],
    )  # fmt: skip
    return helper.make_node("Loop", ["", "go", "x"], ["output0"], body=body)


def built(nodes: Sequence[onnx.NodeProto], **more: Any) -> bytes:
    """A model of nodes, with a detector's output."""
    return onnx_models.build(nodes, {"output0": (1, 6, 8)}, **more).SerializeToString()


def external() -> bytes:
    """A model whose weights are the password file."""
    model = onnx_models.build([helper.make_node("Identity", ["w"], ["output0"])], {"output0": (1, 6, 8)})
    tensor = model.graph.initializer.add(name="w", data_type=TensorProto.FLOAT, dims=[1, 6, 8])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    return model.SerializeToString()


def greedy() -> bytes:
    """A model that wants 100 GB."""
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=0),
        helper.make_node("Expand", ["mean", "shape"], ["large"]),
        helper.make_node("Mul", ["large", "large"], ["larger"]),
        helper.make_node("ReduceMean", ["larger"], ["one"], keepdims=0),
        helper.make_node("Add", ["rows", "one"], ["output0"]),
    ]
    shape, rows = np.array([25_000, 1000, 1000], np.int64), np.zeros((1, 6, 8), np.float32)
    return built(nodes, constants={"shape": shape, "rows": rows})


BAD = {
    "nothing of the kind": (lambda: b"PK\3\4 a zip file, say", "MODEL_UNREADABLE"),
    "nothing at all in it": (lambda: b"\x08\x08", "MODEL_UNREADABLE"),
    "a loop": (lambda: built([loop()]), "MODEL_OP_NOT_ALLOWED"),
    "an operator of its own": (
        lambda: built([helper.make_node("Shell", ["images"], ["output0"], domain="com.evil")]), "MODEL_OP_NOT_ALLOWED",
    ),
    "external data": (external, "MODEL_EXTERNAL_DATA"),
    "too new": (
        lambda: built([helper.make_node("Relu", ["images"], ["output0"])], opset=99), "MODEL_OPSET_UNSUPPORTED",
    ),
    "no head": (lambda: onnx_models.giving({"x": np.zeros((1, 2, 3, 4), np.float32)}), "MODEL_UNSUPPORTED"),
    "no number": (lambda: onnx_models.giving({"x": np.full((1, 6, 8), np.nan, np.float32)}), "MODEL_OUTPUT_INVALID"),
    "a greedy one": (greedy, "MODEL_TOO_LARGE"),
}  # fmt: skip


async def test_what_is_refused_and_why(world: World) -> None:
    """And after all of it the service serves."""
    for what, (make, reason) in BAD.items():
        error = await refusal(world, make())
        assert (error.code, error.reason) == ("FAILED_PRECONDITION", reason), f"{what}: {error.message}"
        if reason == "MODEL_UNSUPPORTED":
            assert "(1, 2, 3, 4)" in error.message
            assert "expected" in error.message
    assert (await refusal(world, onnx_models.detector(CAT), format=model_pb2.UploadSpec.FORMAT_PT)).reason
    await upload(world, onnx_models.detector(CAT))
    assert len((await detect(world)).detections) == 1


async def test_one_that_takes_too_long(state: MemoryState, tmp_path: Path) -> None:
    async with serving(state, tmp_path, inspect_timeout_s=0.01) as world:
        assert (await refusal(world, onnx_models.detector(CAT))).reason == "MODEL_TOO_SLOW"


async def test_who_uploads_many_waits_for_himself(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """One tenant's files are looked at one after the other; another's does not wait behind them."""
    inside: list[Path] = []
    another, go_on = asyncio.Event(), asyncio.Event()

    async def inspect(path: Path, *_: object) -> Facts:
        inside.append(path)
        if len(inside) == 2:
            another.set()
        await go_on.wait()
        raise FailedPrecondition("not today", reason="MODEL_UNREADABLE")

    monkeypatch.setattr(world.models._intake._workshop, "inspect", inspect)
    uploads = [
        asyncio.create_task(
            upload(world, onnx_models.detector((*CAT[:5], 0.5 + number / 10)), model=f"{tenant}/models/m{number}")
        )
        for tenant, count in (("tenants/many", 4), ("tenants/one", 1))
        for number in range(count)
    ]
    async with asyncio.timeout(90):
        await another.wait()
        files = list(world.clear.glob("upload_*/model.onnx"))
        assert len(inside) == len(files) == 2, "files that wait for their turn lie here in clear"
        go_on.set()
        refused = await asyncio.gather(*uploads, return_exceptions=True)
    assert {getattr(error, "reason", error) for error in refused} == {"MODEL_UNREADABLE"}
    assert len(inside) == len(uploads)


async def test_the_same_file_for_two_models_at_once(world: World) -> None:
    """Who was overtaken is told to come again, and then has it; nothing of either is left on the way."""
    file = onnx_models.detector(CAT)

    overtaken: set[str] = set()

    async def insist(model_id: str) -> str:
        while True:
            try:
                return (await upload(world, file, model=f"tenants/acme/models/{model_id}")).name
            except Aborted as error:
                overtaken.add(error.reason)

    async with asyncio.timeout(90):
        made = await asyncio.gather(*(insist(model_id) for model_id in ("pets", "cats", "dogs")))
    assert made == [f"tenants/acme/models/{model_id}/versions/1" for model_id in ("pets", "cats", "dogs")]
    assert overtaken <= {"UPLOAD_CONFLICT"}
    assert not list(world.blobs.rglob("uploads/*/*"))


async def test_a_version_too_many_leaves_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def inspect(*_: object) -> Facts:
        return Facts(("cat",), "detect", 64, 64)

    monkeypatch.setattr(world.models._intake._workshop, "inspect", inspect)
    monkeypatch.setattr(models, "MAX_VERSIONS", 1)
    await upload(world, onnx_models.detector(CAT))
    kept = {path for path in world.blobs.rglob("*") if path.is_file()}
    assert (await refusal(world, onnx_models.detector((*CAT[:5], 0.7)))).reason == "TOO_MANY_VERSIONS"
    upload_parts = {path for path in world.blobs.rglob("uploads/*/*") if path.is_file()}
    assert {path for path in world.blobs.rglob("*") if path.is_file()} - upload_parts == kept


@pytest.mark.parametrize(
    ("catalog_id", "licence", "reason"),
    [("nothing", "", "UNKNOWN_ASSET"), ("photo-astronaut", "", "NOT_A_MODEL"),
     ("nudenet-320n", "", "LICENCE_NOT_ACCEPTED"), ("nudenet-320n", "agpl-3.0", "LICENCE_NOT_ACCEPTED")],
)  # fmt: skip
async def test_what_the_catalogue_does_not_give(world: World, catalog_id: str, licence: str, reason: str) -> None:
    model = model_pb2.Model(catalog_id=catalog_id, licence=licence)
    request = model_pb2.CreateModelRequest(parent="tenants/acme", model_id="faces", model=model)
    with pytest.raises(FacetmeshError) as caught:
        await world.models.CreateModel(request, None)
    assert caught.value.reason == reason


async def test_creating_the_same_again_returns_it(world: World) -> None:
    for asset_id in ("blazeface-full", "blazeface-short"):
        catalog.fetch(asset_id)

    async def create(catalog_id: str) -> model_pb2.Model:
        model = model_pb2.Model(catalog_id=catalog_id)
        return await world.models.CreateModel(
            model_pb2.CreateModelRequest(parent="tenants/acme", model_id="faces", model=model), None
        )

    first = await create("blazeface-full")
    assert (first.catalog_id, list(first.labels)) == ("blazeface-full", ["face"])
    assert await create("blazeface-full") == first
    with pytest.raises(FacetmeshError) as caught:
        await create("blazeface-short")
    assert caught.value.reason == "MODEL_EXISTS"
