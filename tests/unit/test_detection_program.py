"""Detection's program, called as a runner's child calls it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from onnx import helper

from facetmesh.detection.heads.geometry import least_size
from facetmesh.detection.program import detect
from facetmesh.kit.errors import FailedPrecondition
from facetmesh.runners.engines import Graph
from facetmesh.runners.settings import EngineSetting
from facetmesh.runners.tasks import Context

from . import onnx_models

if TYPE_CHECKING:
    from pathlib import Path

    from facetmesh.runners.engines import ImageInput, Model


SIZE = {"labels": ["cat", "dog"], "height": 640, "width": 640}


def asked(file: Path, rows: int, columns: int, **hints: object) -> dict[str, Any]:
    """The arguments for an image of so many rows and columns."""
    return {
        "path": str(file), "sha256": hashlib.sha256(file.read_bytes()).hexdigest(), "hints": hints, "classes": None,
        "min_confidence": 0.25, "iou_threshold": 0.45, "class_agnostic": False, "max_detections": 100,
        "pixels": [rows, columns],
    }  # fmt: skip


def test_a_model_that_fails_on_an_image_is_named_as_the_cause(tmp_path: Path) -> None:
    """Not the service: of dark images all is well, of light ones its shapes do not fit."""
    rows = np.zeros((1, 6, 8), np.float32)
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=0),
        helper.make_node("Cast", ["mean"], ["light"], to=7),
        helper.make_node("Add", ["light", "one"], ["first"]),
        helper.make_node("Reshape", ["first", "one_d"], ["firsts"]),
        helper.make_node("Concat", ["firsts", "rest"], ["shape"], axis=0),
        helper.make_node("Reshape", ["rows", "shape"], ["reshaped"]),
        helper.make_node("ReduceMean", ["reshaped"], ["nothing"], keepdims=0),
        helper.make_node("Add", ["rows", "nothing"], ["output0"]),
    ]
    constants = {
        "one": np.array(1), "one_d": np.array([1]), "rest": np.array([6, 8]), "rows": rows,
    }  # fmt: skip
    file = tmp_path / "model.onnx"
    file.write_bytes(onnx_models.build(nodes, {"output0": (1, 6, 8)}, constants=constants).SerializeToString())
    context, arguments = Context(EngineSetting()), asked(file, 64, 64)
    assert detect(context, arguments, [bytes(3 * 64 * 64)]).values["detections"] == []
    with pytest.raises(FailedPrecondition) as caught:
        detect(context, arguments, [b"\xff" * (3 * 64 * 64)])
    assert caught.value.reason == "MODEL_UNREADABLE"


@pytest.fixture
def middle(tmp_path: Path) -> Path:
    """A YOLO for inputs of any size, which finds their middle, half as wide and as high."""
    nodes = [
        helper.make_node("Shape", ["images"], ["shape"]),
        helper.make_node("Gather", ["shape", "sides"], ["place"]),
        helper.make_node("Cast", ["place"], ["across"], to=1),
        helper.make_node("Mul", ["across", "half"], ["box"]),
        helper.make_node("Concat", ["box", "sure"], ["column"], axis=0),
        helper.make_node("Reshape", ["column", "whole"], ["output0"]),
    ]
    constants = {
        "sides": np.array([3, 2, 3, 2]), "half": np.array(0.5, np.float32), "sure": np.array([0.9, 0.0], np.float32),
        "whole": np.array([1, 6, 1]),
    }  # fmt: skip
    model = onnx_models.build(nodes, {"output0": (1, 6, 1)}, constants=constants, side="side")
    file = tmp_path / "model.onnx"
    file.write_bytes(model.SerializeToString())
    return file


@pytest.mark.parametrize(("rows", "columns"), [(100, 200), (200, 100), (300, 400), (77, 77), (1, 900)])
def test_no_grey_is_looked_at_that_the_model_does_not_ask_for(rows: int, columns: int, middle: Path) -> None:
    """It finds the middle of its input: of one that is as wide as the image, or hardly wider."""
    context = Context(EngineSetting())
    arguments = asked(middle, rows, columns, **SIZE)
    (found,) = detect(context, arguments, [bytes(3 * rows * columns)]).values["detections"]
    height, width = least_size((640, 640), (rows, columns), 64)
    scale = 640 / max(rows, columns)
    seen = [columns / 2 - width / scale / 4, rows / 2 - height / scale / 4]
    assert found["box"][:2] == pytest.approx([max(0, one) for one in seen], abs=1)


def test_a_model_is_compiled_once_for_a_size(middle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever sizes come between; its file is read as often, but for the first."""
    compiled: list[tuple[int, int]] = []
    compile_ = Graph.compile

    def seen(graph: Graph, setting: EngineSetting, image: ImageInput | None = None) -> Model:
        assert image is not None
        compiled.append((image.height, image.width))
        return compile_(graph, setting, image)

    monkeypatch.setattr(Graph, "compile", seen)
    context = Context(EngineSetting())
    for rows, columns in [(90, 160), (50, 50), (75, 100), (90, 160), (160, 90), (100, 75), (76, 100), (50, 50)]:
        detect(context, asked(middle, rows, columns, **SIZE), [bytes(3 * rows * columns)])
    assert compiled == [(384, 640), (640, 640), (512, 640), (640, 384), (640, 512)]


def test_where_memory_is_short_the_size_that_is_asked_for_is_left(middle: Path) -> None:
    """And other models go before the sizes of this one."""
    short = False
    context = Context(EngineSetting(), crowded=lambda: short)
    context.asked("other")
    context.once("other", lambda: "other")
    context.asked("this")
    for rows, columns in [(90, 160), (160, 90)]:
        short = rows > columns
        detect(context, asked(middle, rows, columns, **SIZE), [bytes(3 * rows * columns)])
    assert context.gone() == ["other"]
