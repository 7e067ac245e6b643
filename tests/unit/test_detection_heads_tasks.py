"""Heads beside YOLOv8's boxes: other layouts, masks, points, rotated boxes, classes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facetmesh.detection import heads
from facetmesh.detection.heads import masks
from facetmesh.detection.heads.classify import YoloClassify
from facetmesh.detection.heads.geometry import Overlap, Placement, cover
from facetmesh.detection.heads.obb import YoloObb
from facetmesh.detection.heads.pose import YoloPose
from facetmesh.detection.heads.segment import YoloSegment
from facetmesh.detection.heads.yolo import Yolo, YoloRows
from facetmesh.detection.hints import Hints
from facetmesh.kit.errors import FailedPrecondition

SIDE = 64
AS_IT_IS = Placement(1.0, 1.0, 0, 0, (SIDE, SIDE))
NAMES = str({0: "cat", 1: "dog"})


@dataclass
class Graph:
    """What a head sees of a model."""

    outputs: dict[str, tuple[int | None, ...]]
    metadata: dict[str, str] = field(default_factory=dict)
    inputs: dict[str, tuple[int | None, ...]] = field(default_factory=lambda: {"images": (1, 3, SIDE, SIDE)})


def head(shapes: list[tuple[int | None, ...]], hints: Hints | None = None, **metadata: str) -> Any:
    """The head of a model with these outputs."""
    graph = Graph({f"output{index}": shape for index, shape in enumerate(shapes)}, metadata)
    return heads.of(graph, hints or Hints())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("shapes", "metadata", "kind", "labels"),
    [
        ([(1, 6, 84)], {"names": NAMES}, Yolo, ("cat", "dog")),
        ([(1, 6, None)], {}, Yolo, ("0", "1")),
        ([(1, 84, 7)], {"names": NAMES}, YoloRows, ("cat", "dog")),
        ([(1, 84, 7)], {"names": "['cat', 'dog']"}, YoloRows, ("cat", "dog")),  # v5's older exports
        ([(1, 300, 6)], {"names": NAMES}, YoloRows, ("cat", "dog")),
        ([(1, 300, 6)], {"names": str({0: "cat"})}, YoloRows, ("cat",)),
        ([(1, 252, 6)], {}, YoloRows, ("0",)),
        ([(None, None, 7)], {"names": NAMES}, YoloRows, ("cat", "dog")),
        ([(1, 6, 5)], {"names": NAMES}, Yolo, ("cat", "dog")),
        ([(1, 14, 8)], {"names": str(dict(enumerate("abcdefghij")))}, Yolo, tuple("abcdefghij")),
        ([(1, 38, 84), (1, 32, 16, 16)], {"names": NAMES}, YoloSegment, ("cat", "dog")),
        ([(1, 32, 16, 16), (1, 38, 84)], {"names": NAMES}, YoloSegment, ("cat", "dog")),
        ([(1, 56, 84)], {"task": "pose", "kpt_shape": "[17, 3]", "names": str({0: "person"})}, YoloPose, ("person",)),
        ([(1, 9, 84)], {"task": "pose", "kpt_shape": "[2, 2]"}, YoloPose, ("0",)),
        ([(1, 7, 84)], {"task": "obb", "names": NAMES}, YoloObb, ("cat", "dog")),
        ([(1, 2)], {"names": NAMES}, YoloClassify, ("cat", "dog")),
    ],
)
def test_a_head_is_found_from_the_shapes(
    shapes: list[tuple[int | None, ...]], metadata: dict[str, str], kind: type, labels: tuple[str, ...]
) -> None:
    found = head(shapes, **metadata)
    assert type(found) is kind
    assert (found.labels, found.size) == (labels, (SIDE, SIDE))


@pytest.mark.parametrize(
    ("rows", "metadata", "end_to_end"),
    [
        (300, {"names": str({0: "cat"})}, True),  # v10's most boxes
        (252, {"names": str({0: "cat"})}, False),  # v5: three for each cell of 64 pixels square
        (255, {"names": str({0: "cat"})}, False),  # with a fourth grid
        (252, {"names": str({0: "cat"}), "end2end": "True"}, True),
        (300, {"names": str({0: "cat"}), "end2end": "False"}, False),
        (None, {"names": str({0: "cat"})}, False),
    ],
)
def test_six_numbers_are_v5s_where_there_are_as_many_rows_as_it_has(
    rows: int | None, metadata: dict[str, str], *, end_to_end: bool
) -> None:
    """Of one class, both have six."""
    assert head([(1, rows, 6)], **metadata).end_to_end is end_to_end


def test_classes_that_only_their_numbers_tell_must_be_named() -> None:
    """Else all but the first would be left out."""
    with pytest.raises(FailedPrecondition) as caught:
        head([(1, 300, 6)])
    assert caught.value.reason == "MODEL_UNSUPPORTED"
    assert "labels" in caught.value.message
    assert head([(1, 300, 6)], Hints(labels=("cat", "dog"))).labels == ("cat", "dog")


@pytest.mark.parametrize("task", ["segment", "pose", "obb"])
def test_an_end_to_end_export_of_another_task_is_refused(task: str) -> None:
    """Its rows would be taken for classes."""
    with pytest.raises(FailedPrecondition) as caught:
        head([(1, 300, 57)], task=task, end2end="True", names=str({0: "person"}))
    assert caught.value.reason == "MODEL_UNSUPPORTED"
    assert "end2end=False" in caught.value.message


def test_what_the_file_does_not_say_can_be_hinted() -> None:
    assert head([(1, 7, 84)], Hints(("cat", "dog"), "obb")).labels == ("cat", "dog")
    assert type(head([(1, 56, 84)], Hints(task="pose"))) is YoloPose
    assert type(head([(1, 300, 6)], Hints(("a", "b")))) is YoloRows


def test_version_5_is_sure_of_an_object_first() -> None:
    rows = np.zeros((1, 84, 7), np.float32)
    rows[0, 3] = (32, 32, 20, 10, 0.5, 0.1, 0.8)
    found = head([(1, 84, 7)]).candidates({"o": rows}, 0.25)
    assert found.classes.tolist() == [1]
    assert found.confidences.tolist() == pytest.approx([0.4])
    assert found.boxes.tolist() == [[22, 27, 42, 37]]


def test_boxes_without_overlaps_are_taken_as_they_are() -> None:
    rows = np.zeros((1, 300, 6), np.float32)
    rows[0, :3] = [(1, 2, 30, 40, 0.9, 1), (2, 2, 30, 40, 0.8, 1), (0, 0, 5, 5, np.nan, np.nan)]
    model = head([(1, 300, 6)], names=NAMES)
    found = model.select(model.candidates({"o": rows}, 0.25), Overlap(0.45), 100)
    assert found.boxes.tolist() == [[1, 2, 30, 40], [2, 2, 30, 40]]


def test_a_mask_is_the_prototypes_within_the_box() -> None:
    boxes = np.zeros((1, 38, 8), np.float32)
    boxes[0, :6, 0] = (32, 32, 32, 32, 0.9, 0)
    boxes[0, 6, 0] = 1  # the first prototype
    prototypes = np.full((1, 32, 16, 16), -5, np.float32)
    prototypes[0, 0, :, 8:] = 5  # the right half of the input
    model = head([(1, 38, 8), (1, 32, 16, 16)], names=NAMES)
    outputs = {"a": boxes, "b": prototypes}
    found = model.candidates(outputs, 0.25)
    (detail,) = model.details(found, outputs, AS_IT_IS, (SIDE, SIDE))
    mask = decoded(detail["mask"], SIDE, SIDE)
    expected = np.zeros((SIDE, SIDE), bool)
    expected[16:48, 32:48] = True
    assert (mask & expected).sum() / (mask | expected).sum() > 0.95
    # The same at twice the size, with the image in the middle.
    (large,) = model.details(found, outputs, Placement(0.5, 0.5, 0, 0, (SIDE, SIDE)), (2 * SIDE, 2 * SIDE))
    assert decoded(large["mask"], 2 * SIDE, 2 * SIDE)[::2, ::2].sum() == pytest.approx(expected.sum(), rel=0.05)


def test_a_mask_of_an_input_that_is_not_square() -> None:
    """The prototypes cover what the model saw, not the whole input that it could have seen."""
    boxes = np.zeros((1, 38, 8), np.float32)
    boxes[0, :7, 0] = (32, 16, 32, 16, 0.9, 0, 1)
    prototypes = np.full((1, 32, 8, 16), -5, np.float32)
    prototypes[0, 0, :, 8:] = 5  # the right half of 32 rows and 64 columns
    model = head([(1, 38, 8), (1, 32, 16, 16)], names=NAMES)
    outputs = {"a": boxes, "b": prototypes}
    found = model.candidates(outputs, 0.25)
    (detail,) = model.details(found, outputs, Placement(1.0, 1.0, 0, 0, (SIDE // 2, SIDE)), (SIDE // 2, SIDE))
    expected = np.zeros((SIDE // 2, SIDE), bool)
    expected[8:24, 32:48] = True
    mask = decoded(detail["mask"], SIDE // 2, SIDE)
    assert (mask & expected).sum() / (mask | expected).sum() > 0.95


def decoded(text: str, rows: int, columns: int) -> np.ndarray[Any, Any]:
    """A mask from COCO's text, as maskApi.c's rleFrString and rleDecode read it."""
    lengths: list[int] = []
    position = 0
    while position < len(text):
        value = shift = 0
        more = True
        while more:
            byte = ord(text[position]) - 48
            value |= (byte & 0x1F) << (5 * shift)
            more = bool(byte & 0x20)
            position += 1
            shift += 1
            if not more and byte & 0x10:
                value |= -1 << (5 * shift)
        lengths.append(value + lengths[-2] if len(lengths) > 2 else value)
    flat = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    assert flat.size == rows * columns
    return flat.reshape(columns, rows).T


@given(data=st.data())
def test_any_mask_comes_back(data: st.DataObject) -> None:
    rows, columns = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    height, width = data.draw(st.integers(1, rows)), data.draw(st.integers(1, columns))
    top, left = data.draw(st.integers(0, rows - height)), data.draw(st.integers(0, columns - width))
    bits = data.draw(st.lists(st.booleans(), min_size=height * width, max_size=height * width))
    part = np.array(bits).reshape(height, width)
    whole = np.zeros((rows, columns), bool)
    whole[top : top + height, left : left + width] = part
    text = masks.encode(masks.runs(part, left, top, (rows, columns)))
    np.testing.assert_array_equal(decoded(text, rows, columns), whole)


def test_a_text_as_pycocotools_writes_it() -> None:
    """Of the mask of columns 1 to 2 and rows 1 to 2 of 4 by 5 pixels; made with pycocotools 2.0.11."""
    text = masks.encode(masks.runs(np.ones((2, 2), bool), 1, 1, (4, 5)))
    assert text == "52207"


def test_points_come_with_how_sure_they_are_seen() -> None:
    output = np.zeros((1, 56, 8), np.float32)
    output[0, :5, 0] = (32, 32, 20, 20, 0.9)
    output[0, 5:8, 0] = (30, 25, 0.7)
    model = head([(1, 56, 8)], task="pose", kpt_shape="[17, 3]")
    found = model.candidates({"o": output}, 0.25)
    assert model.keypoints[0] == "nose"
    assert found.keypoints[0, 0].tolist() == [30, 25]
    (detail,) = model.details(found, {}, AS_IT_IS, (SIDE, SIDE))
    assert detail["seen"][0] == pytest.approx(0.7)


def test_rotated_boxes() -> None:
    output = np.zeros((1, 7, 8), np.float32)
    output[0, :, 0] = (32, 32, 20, 10, 0.9, 0, math.pi / 2)
    output[0, :, 1] = (33, 32, 20, 10, 0.8, 0, math.pi / 2)  # the same one
    output[0, :, 2] = (32, 32, 20, 10, 0.7, 0, 0)  # across
    output[0, :, 3] = (10, 10, 8, 4, 0.6, 0, 0)
    model = head([(1, 7, 8)], task="obb", names=NAMES)
    found = model.select(model.candidates({"o": output}, 0.25), Overlap(0.6), 100)
    assert found.confidences.tolist() == pytest.approx([0.9, 0.7, 0.6])
    assert found.boxes[0].tolist() == pytest.approx([27, 22, 37, 42], abs=1e-3)
    detail = model.details(found, {}, Placement(0.5, 0.5, 2, 0, (SIDE, SIDE)), (SIDE, SIDE))[0]
    assert detail["rotated_box"] == pytest.approx([60, 64, 40, 20, math.pi / 2])


def test_classes_of_the_whole_image() -> None:
    model = head([(1, 3)], names=str({0: "a", 1: "b", 2: "c"}))
    output = {"o": np.array([[0.2, 0.7, 0.05]], np.float32)}
    assert [index for index, _ in model.classes(output, 0.1)] == [1, 0]
    assert [index for index, _ in model.classes(output, 0.5)] == [1]
    assert len(model.candidates(output, 0.1).confidences) == 0
    assert model.classes({"o": np.array([[0.2, 0.7, np.nan]], np.float32)}, 0) == []


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((1.0, 3.0, -2.0), [(1, 0.876), (0, 0.118), (2, 0.006)]),  # logits, of which scipy.special.softmax makes these
        ((-1.0, -0.6, -4.0), [(1, 0.587), (0, 0.393), (2, 0.020)]),  # and of what log_softmax made
        ((0.9, 0.8, 0.1), [(0, 0.9), (1, 0.8), (2, 0.1)]),  # independent classes
        ((0.0, 1.004, -0.001), [(1, 1.0), (0, 0.0), (2, 0.0)]),  # probabilities by bf16's arithmetic
        ((1e4, 0.0, -1e4), [(0, 1.0), (1, 0.0), (2, 0.0)]),
    ],
)
def test_logits_become_probabilities(values: tuple[float, ...], expected: list[tuple[int, float]]) -> None:
    """Torchvision's and timm's models give logits; their likeliest classes were left out, being above 1."""
    found = head([(1, 3)]).classes({"o": np.array([values], np.float32)}, 0)
    assert [index for index, _ in found] == [index for index, _ in expected]
    assert [likely for _, likely in found] == pytest.approx([likely for _, likely in expected], abs=1e-3)


def test_the_middle_fills_the_input() -> None:
    pixels = np.zeros((100, 300, 3), np.uint8)
    pixels[:, 100:200] = 255
    filled, placement = cover(pixels, (50, 50), (100, 300))
    assert filled.shape == (1, 50, 50, 3)
    assert filled.min() == 255
    assert placement == Placement(0.5, 0.5, -50, 0, (50, 50))


@given(
    kind=st.sampled_from([
        ([(1, 6, 8)], {}), ([(1, 20, 7)], {}), ([(1, 20, 6)], {"names": NAMES}), ([(1, 7, 8)], {"task": "obb"}),
        ([(1, 9, 8)], {"task": "pose", "kpt_shape": "[2, 2]"}), ([(1, 38, 8), (1, 32, 16, 16)], {}), ([(1, 5)], {}),
    ]),
    seed=st.integers(0, 1000), poison=st.sampled_from([np.nan, np.inf, -np.inf, 1e30, -1e30]),
)  # fmt: skip
def test_nonsense_out_of_a_model_is_left_out(
    kind: tuple[list[tuple[int, ...]], dict[str, str]], seed: int, poison: float
) -> None:
    """NaN and infinity never reach an answer."""
    shapes, metadata = kind
    model = head(list(shapes), **metadata)
    random = np.random.default_rng(seed)
    outputs = {}
    for index, shape in enumerate(shapes):
        array = random.uniform(0, 1, shape).astype(np.float32)
        array[random.uniform(0, 1, shape) < 0.3] = poison
        outputs[f"output{index}"] = array
    with np.errstate(all="ignore"):
        found = model.select(model.candidates(outputs, 0.25), Overlap(0.45), 5)
        details = model.details(found, outputs, AS_IT_IS, (SIDE, SIDE))
    assert np.isfinite(found.boxes).all()
    assert (found.confidences <= 1).all()
    assert len(details) == len(found.boxes)
