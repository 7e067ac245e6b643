"""What an ONNX file may hold, and files that fuzzers make."""

from __future__ import annotations

import hashlib
import random
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from facetmesh.detection import onnx_rules
from facetmesh.detection.hints import NONE
from facetmesh.detection.workshop import Workshop
from facetmesh.kit import catalog
from facetmesh.kit.errors import FailedPrecondition
from facetmesh.runners.pool import RunnerPool

from . import onnx_models

if TYPE_CHECKING:
    from pathlib import Path

GOOD = onnx_models.detector((32, 32, 20, 10, 0, 0.9))
REASONS = {
    "MODEL_UNREADABLE", "MODEL_OPSET_UNSUPPORTED", "MODEL_OP_NOT_ALLOWED", "MODEL_EXTERNAL_DATA", "MODEL_TOO_COMPLEX",
}  # fmt: skip
FOUND = {
    *REASONS, "MODEL_UNSUPPORTED", "MODEL_OUTPUT_INVALID", "MODEL_TOO_LARGE", "MODEL_TOO_SLOW", "MODEL_CRASHED",
    "MODEL_CHANGED",
}  # fmt: skip


def changed(data: bytes, seed: int) -> bytes:
    """The file with a few bytes changed, cut out or repeated."""
    chance, file = random.Random(seed), bytearray(data)  # noqa: S311 - a test that can be repeated
    for _ in range(chance.randint(1, 8)):
        at = chance.randrange(len(file))
        match chance.randrange(4):
            case 0:
                file[at] = chance.randrange(256)
            case 1:
                del file[at : at + chance.randint(1, 50)]
            case 2:
                file[at:at] = file[at : at + chance.randint(1, 50)]
            case _:
                file[at : at + 4] = chance.randbytes(4)
    return bytes(file) or b"\0"


def reason(data: bytes) -> str:
    """What a file is refused with; empty when it is not."""
    try:
        onnx_rules.check(data)
    except FailedPrecondition as error:
        return error.reason
    return ""


def test_a_real_detector_keeps_the_rules() -> None:
    path = catalog.fetch("nudenet-320n", accept_licence="AGPL-3.0")
    model = onnx_rules.check(path.read_bytes())
    assert [one["datatype"] for one in onnx_rules.tensors(model.graph.output)] == ["FP32"]


@given(data=st.binary(max_size=500))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    assert reason(data) in REASONS


@given(seed=st.integers(0, 2**32))
def test_any_change_of_a_good_file_is_read_or_refused(seed: int) -> None:
    assert reason(changed(GOOD, seed)) in REASONS | {""}


def edited(edit: str) -> bytes:
    """The good file with something in it that must not be there."""
    model = onnx.load_from_string(GOOD)
    node = model.graph.node[0]
    match edit:
        case "subgraph":
            node.attribute.append(helper.make_attribute("body", helper.make_graph([], "g", [], [])))
        case "function":
            model.functions.add(name="f", domain="x")
        case "attribute":
            tensor = numpy_helper.from_array(np.zeros(2, np.float32))
            tensor.data_location = TensorProto.EXTERNAL
            node.attribute.append(helper.make_attribute("value", tensor))
        case "sparse":
            sparse = model.graph.sparse_initializer.add()
            sparse.values.external_data.add(key="location", value="/etc/passwd")
        case "nodes":
            model.graph.node.extend([helper.make_node("Relu", ["mean"], [f"n{n}"]) for n in range(20_001)])
        case "no opset":
            del model.opset_import[:]
        case "old":
            model.opset_import[0].version = 8
        case "domain":
            node.domain = "com.microsoft"
        case _:
            node.op_type = edit
    return model.SerializeToString()


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        ("subgraph", "MODEL_OP_NOT_ALLOWED"), ("function", "MODEL_OP_NOT_ALLOWED"),
        ("attribute", "MODEL_EXTERNAL_DATA"), ("sparse", "MODEL_EXTERNAL_DATA"), ("nodes", "MODEL_TOO_COMPLEX"),
        ("no opset", "MODEL_OPSET_UNSUPPORTED"), ("old", "MODEL_OPSET_UNSUPPORTED"),
        ("domain", "MODEL_OP_NOT_ALLOWED"), ("Loop", "MODEL_OP_NOT_ALLOWED"), ("If", "MODEL_OP_NOT_ALLOWED"),
        ("Scan", "MODEL_OP_NOT_ALLOWED"), ("ATen", "MODEL_OP_NOT_ALLOWED"), ("RandomNormal", "MODEL_OP_NOT_ALLOWED"),
        ("Relu", ""),
    ],
)  # fmt: skip
def test_what_must_not_be_in_it(edit: str, expected: str) -> None:
    assert reason(edited(edit)) == expected


@pytest.mark.full
async def test_changed_files_are_tried_in_real_processes(tmp_path: Path) -> None:
    """Whatever the parser and the engine make of them: a reason, and the next file is looked at."""
    workshop = Workshop(RunnerPool)
    for seed in range(40):
        path = tmp_path / f"{seed}.onnx"
        path.write_bytes(changed(GOOD, seed))
        try:
            await workshop.inspect(path, hashlib.sha256(path.read_bytes()).hexdigest(), NONE)
        except FailedPrecondition as error:
            assert error.reason in FOUND  # noqa: PT017 - either way is fine
