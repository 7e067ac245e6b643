"""The engine, on a model made here and saved as a file."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops

from facetmesh.kit.errors import FailedPrecondition
from facetmesh.runners.engines import ImageInput, open_model, read_model
from facetmesh.runners.settings import EngineSetting

if TYPE_CHECKING:
    from pathlib import Path

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


def test_threads_do_not_mix_their_results(interleaved: Path) -> None:
    """Each has a request of its own."""
    model = open_model(interleaved, SETTING)
    arrays = [np.full((1, 4, 6, 3), number, np.float32) for number in range(200)]
    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(model.infer, arrays))
    assert all((result["same"] == number).all() for number, result in enumerate(results))


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
