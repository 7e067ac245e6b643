"""The engine, on a model made here and saved as a file."""

from __future__ import annotations

import hashlib
import importlib
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import openvino as ov
import pytest
from onnx import TensorProto, helper, numpy_helper
from openvino import opset13 as ops

from facetmesh.kit.errors import FailedPrecondition
from facetmesh.runners.engines import ImageInput, open_model, openvino, read_model
from facetmesh.runners.engines.base import Plans, machine_cores
from facetmesh.runners.settings import EngineSetting

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from facetmesh.runners.engines.base import Shape

SETTING = EngineSetting()


@pytest.fixture
def planar(tmp_path: Path) -> Path:
    """A model that returns its input, any (1, 3, H, W), as `same`."""
    return save(tmp_path / "planar.xml", [1, 3, -1, -1])


@pytest.fixture
def interleaved(tmp_path: Path) -> Path:
    """A model that returns its input, (1, 4, 6, 3), as `same`."""
    return save(tmp_path / "interleaved.xml", [1, 4, 6, 3])


def save(path: Path, shape: list[int]) -> Path:
    """Saves a model that returns its input."""
    parameter = ops.parameter(ov.PartialShape(shape), ov.Type.f32, name="images")
    same = ops.add(parameter, ops.constant(np.float32(0)), name="same")
    same.output(0).tensor.set_names({"same"})
    parameter.output(0).tensor.set_names({"images"})
    ov.save_model(ov.Model([same], [parameter]), path, compress_to_fp16=False)
    return path


def test_shapes_are_told_and_open_ones_are_none(planar: Path) -> None:
    """Before anything is compiled."""
    graph = read_model(planar)
    assert graph.inputs == {"images": (1, 3, None, None)}
    assert graph.outputs == {"same": (1, 3, None, None)}
    assert graph.metadata == {}


def test_a_model_takes_what_its_file_says(interleaved: Path) -> None:
    """And returns arrays of the caller's own."""
    model = open_model(interleaved, SETTING)
    array = np.arange(72, dtype=np.float32).reshape(1, 4, 6, 3)
    first = model.infer(array)["same"]
    model.infer(array * 0)
    assert np.array_equal(first, array)


@pytest.mark.parametrize("kind", ["planar", "interleaved"])
def test_the_graph_itself_converts_images(kind: str, request: pytest.FixtureRequest) -> None:
    """uint8 rows of pixels in, the model's type, scale and layout inside."""
    graph = read_model(request.getfixturevalue(kind))
    model = graph.compile(SETTING, ImageInput(4, 6, mean=127.5, scale=127.5))
    image = np.random.default_rng(0).integers(0, 256, (1, 4, 6, 3), np.uint8)
    seen = model.infer(image)["same"]
    if kind == "planar":
        seen = seen.transpose(0, 2, 3, 1)
    np.testing.assert_allclose(seen, (image - 127.5) / 127.5, atol=1e-6)


@pytest.mark.parametrize(
    ("setting", "open_"),
    [
        (SETTING, True),
        (replace(SETTING, batch=4), False),
        (replace(SETTING, engine="onnxruntime", device="cuda"), False),
    ],
    ids=["alone", "together", "on a card"],
)
def test_a_file_may_leave_the_size_of_its_input_open(planar: Path, setting: EngineSetting, *, open_: bool) -> None:
    """It can be asked before the file is compiled, and again for each size."""
    graph = read_model(planar)
    assert graph.leaves_open(setting, 2, 3) is open_
    image = np.random.default_rng(0).integers(0, 256, (1, 4, 3, 3), np.uint8)
    seen = graph.compile(SETTING, ImageInput(4, 3, scale=1.0)).infer(image)["same"]
    np.testing.assert_array_equal(seen, image.transpose(0, 3, 1, 2))


def fixed_size() -> ov.Model:
    """The size is written into the file."""
    parameter = ops.parameter([1, 3, 4, 6], ov.Type.f32, name="images")
    return ov.Model([ops.relu(parameter)], [parameter])


def fixed_within() -> ov.Model:
    """It is not, but what follows from it is."""
    parameter = ops.parameter(ov.PartialShape([1, 3, -1, -1]), ov.Type.f32, name="images")
    return ov.Model([ops.add(parameter, ops.constant(np.ones((1, 3, 4, 6), np.float32)))], [parameter])


def found_as_it_runs() -> ov.Model:
    """It depends on what the image shows whether its shapes fit."""
    parameter = ops.parameter(ov.PartialShape([1, 3, -1, -1]), ov.Type.f32, name="images")
    return ov.Model([ops.non_zero(parameter)], [parameter])


@pytest.mark.parametrize("make", [fixed_size, fixed_within, found_as_it_runs])
def test_a_file_that_only_seems_to_leave_it_open(make: Callable[[], ov.Model], tmp_path: Path) -> None:
    """Its model is made for one size, or may be."""
    ov.save_model(make(), tmp_path / "model.xml")
    assert not read_model(tmp_path / "model.xml").leaves_open(SETTING, 2, 3)


def test_a_large_model_has_one_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each further one would have its weights once more."""
    parameter = ops.parameter(ov.PartialShape([1, 3, -1, -1]), ov.Type.f32, name="images")
    weights = ops.constant(np.ones((8, 3, 1, 1), np.float32))
    model = ov.Model([ops.convolution(parameter, weights, [1, 1], [0, 0], [0, 0], [1, 1])], [parameter])
    ov.save_model(model, tmp_path / "model.xml", compress_to_fp16=False)
    found = []
    for bound in (200, 80):
        monkeypatch.setattr(openvino, "_SIZED_BYTES", bound)
        found.append(read_model(tmp_path / "model.xml").leaves_open(SETTING, 2, 3))
    assert found == [True, False]


@pytest.mark.parametrize(("cores", "copied_bytes"), [(0, 0), (1, 0), (1, 1 << 20)])
def test_threads_do_not_mix_their_results(
    interleaved: Path, cores: int, copied_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has a request of its own, whether they share what was compiled or have copies of it."""
    monkeypatch.setattr(openvino, "_COPIED_BYTES", copied_bytes)
    model = open_model(interleaved, SETTING)
    arrays = [np.full((1, 4, 6, 3), number, np.float32) for number in range(200)]
    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(partial(model.infer, cores=cores), arrays))
    assert all((result["same"] == number).all() for number, result in enumerate(results))


@pytest.mark.skipif(machine_cores() == 1, reason="there is no other core")
@pytest.mark.parametrize(("cores", "pinned"), [(machine_cores(), True), (1, False)])
def test_a_call_with_all_cores_is_pinned_to_them(planar: Path, cores: int, *, pinned: bool) -> None:
    """Only while it runs; calls on a core each go where there is room."""
    model = open_model(planar, SETTING)
    array = np.zeros((1, 3, 1024, 1024), np.float32)
    masks: list[int] = []

    looked = threading.Event()

    def call() -> None:
        while len(masks) < 50 or not looked.is_set():
            model.infer(array, cores=cores)
            masks.append(len(os.sched_getaffinity(0)))

    during = set()
    until = time.monotonic() + 30  # on a busy machine it may be long until a look falls into a call
    with ThreadPoolExecutor(1) as threads:
        caller = threads.submit(threading.get_native_id).result()
        calls = threads.submit(call)
        while not calls.done():
            during.add(len(os.sched_getaffinity(caller)))
            if not pinned or 1 in during or time.monotonic() > until:
                looked.set()
            time.sleep(0.0005)
        calls.result()
    assert during - {machine_cores()} == ({1} if pinned else set())
    assert set(masks) == {machine_cores()}


class Slow:
    """A plan that is in use until it may end."""

    outputs: ClassVar[dict[str, Shape]] = {}

    def __init__(self) -> None:
        self.may_end = threading.Event()
        self.inside = threading.Lock()

    def infer(self, array: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """One call at a time, or the test fails."""
        assert self.inside.acquire(blocking=False)
        assert self.may_end.wait(90)
        self.inside.release()
        return {"same": array}


def test_calls_have_a_copy_each_and_no_more_are_made_than_may_be() -> None:
    """The second is made when the first is in use; a third call waits for one of the two."""
    made: list[Slow] = []

    def make() -> Slow:
        made.append(Slow())
        return made[-1]

    copies = openvino.Copies(make, 2)
    assert len(made) == 1
    with ThreadPoolExecutor(3) as threads:
        arrays = [np.full(1, number, np.float32) for number in range(3)]
        results = [threads.submit(copies.infer, array) for array in arrays]
        until = time.monotonic() + 90
        while not (len(made) > 1 and made[1].inside.locked()) and time.monotonic() < until:
            time.sleep(0.005)
        assert made[1].inside.locked()
        for copy in made:
            copy.may_end.set()
        assert [result.result(90)["same"][0] for result in results] == [0, 1, 2]
    assert len(made) == 2


def test_another_file_than_registered_is_refused(planar: Path) -> None:
    """By its hash."""
    sha256 = hashlib.sha256(planar.read_bytes()).hexdigest()
    read_model(planar, sha256=sha256)
    planar.write_bytes(planar.read_bytes() + b"\n")
    with pytest.raises(FailedPrecondition) as caught:
        read_model(planar, sha256=sha256)
    assert caught.value.reason == "MODEL_CHANGED"


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x08\x12\x07pytorch"])
def test_what_is_no_model_is_unreadable(tmp_path: Path, content: bytes) -> None:
    """And so is what is not there."""
    file = tmp_path / "model.onnx"
    for _ in range(2):
        with pytest.raises(FailedPrecondition) as caught:
            read_model(file)
        assert caught.value.reason == "MODEL_UNREADABLE"
        file.write_bytes(content)


ONNX_RUNTIME = EngineSetting("onnxruntime", engine="onnxruntime")


def onnx_file(path: Path, shape: list[int | str], kind: int = TensorProto.FLOAT) -> Path:
    """An ONNX file that doubles its input."""
    two = numpy_helper.from_array(np.float32(2), "two")
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["floats", "two"], ["doubled"]),
        ],
        "double",
        [helper.make_tensor_value_info("images", kind, shape)],
        [helper.make_tensor_value_info("doubled", TensorProto.FLOAT, shape)],
        [two],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("shape", [[1, 3, "h", "w"], [1, 3, 4, 6]])
def test_two_engines_say_the_same_of_an_image(tmp_path: Path, shape: list[int | str]) -> None:
    """Colours, scale and layout included."""
    pytest.importorskip("onnxruntime")
    file = onnx_file(tmp_path / "double.onnx", shape)
    image = np.random.default_rng(0).integers(0, 256, (1, 4, 6, 3), np.uint8)
    results = [
        read_model(file).compile(setting, ImageInput(4, 6, mean=127.5, scale=127.5)).infer(image)
        for setting in (SETTING, ONNX_RUNTIME)
    ]
    assert [list(result) for result in results] == [["doubled"], ["doubled"]]
    np.testing.assert_allclose(results[0]["doubled"], results[1]["doubled"], atol=1e-5)


@pytest.mark.parametrize("setting", [SETTING, ONNX_RUNTIME], ids=["openvino", "onnxruntime"])
def test_who_takes_bytes_sees_them_as_they_are(tmp_path: Path, setting: EngineSetting) -> None:
    """Scaled to 0 and 1 they would be black; of other whole numbers nobody knows what they mean."""
    pytest.importorskip("onnxruntime")
    image = np.random.default_rng(0).integers(0, 256, (1, 4, 6, 3), np.uint8)
    file = onnx_file(tmp_path / "bytes.onnx", [1, 3, 4, 6], TensorProto.UINT8)
    seen = read_model(file).compile(setting, ImageInput(4, 6)).infer(image)["doubled"]
    np.testing.assert_array_equal(seen, 2 * image.astype(np.float32).transpose(0, 3, 1, 2))
    for kind in (TensorProto.INT8, TensorProto.INT64):
        file = onnx_file(tmp_path / "integers.onnx", [1, 3, 4, 6], kind)
        with pytest.raises(FailedPrecondition) as caught:
            read_model(file).compile(setting, ImageInput(4, 6))
        assert caught.value.reason == "MODEL_UNSUPPORTED"


def test_a_device_that_is_not_there_is_no_reason_to_use_another(tmp_path: Path) -> None:
    """ONNX Runtime would go on, on the CPU."""
    pytest.importorskip("onnxruntime")
    file = onnx_file(tmp_path / "double.onnx", [1, 3, 4, 6])
    if "CUDAExecutionProvider" in importlib.import_module("onnxruntime").get_available_providers():
        pytest.skip("there is one")
    with pytest.raises(FailedPrecondition):
        read_model(file).compile(EngineSetting("cuda", engine="onnxruntime", device="cuda"))


def test_the_first_plan_serves_while_the_better_one_is_made() -> None:
    """Nobody waits, and each is made once."""
    asked: list[int] = []
    may_end = threading.Event()

    def make(cores: int) -> str:
        asked.append(cores)
        if len(asked) > 1:
            may_end.wait(30)
        return f"for {cores}"

    plans = Plans(make)
    assert plans.get(1) == "for 1"
    if machine_cores() == 1:
        return
    assert [plans.get(2) for _ in range(5)] == ["for 1"] * 5
    may_end.set()
    until = time.monotonic() + 90
    while plans.get(2) != "for 2" and time.monotonic() < until:
        time.sleep(0.005)
    assert plans.get(2) == "for 2"
    assert plans.get(10_000) == plans.get(0)
    assert sorted(asked)[:2] == [1, 2]
