"""Detection's program, called as a runner's child calls it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import pytest
from onnx import helper

from facetmesh.detection.program import detect
from facetmesh.kit.errors import FailedPrecondition
from facetmesh.runners.settings import EngineSetting
from facetmesh.runners.tasks import Context

from . import onnx_models

if TYPE_CHECKING:
    from pathlib import Path


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
    context = Context(EngineSetting())
    arguments = {
        "path": str(file), "sha256": hashlib.sha256(file.read_bytes()).hexdigest(), "hints": {}, "classes": None,
        "min_confidence": 0.25, "iou_threshold": 0.45, "class_agnostic": False, "max_detections": 100,
        "pixels": [64, 64],
    }  # fmt: skip
    assert detect(context, arguments, [bytes(3 * 64 * 64)]).values["detections"] == []
    with pytest.raises(FailedPrecondition) as caught:
        detect(context, arguments, [b"\xff" * (3 * 64 * 64)])
    assert caught.value.reason == "MODEL_UNREADABLE"
