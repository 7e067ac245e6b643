"""YOLO's head on made-up tensors."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from facetmesh.detection import heads
from facetmesh.detection.heads.geometry import Overlap
from facetmesh.detection.heads.yolo import Yolo
from facetmesh.kit.errors import FailedPrecondition

BOXES = 20


@dataclass
class Graph:
    """What a head sees of a model."""

    inputs: dict[str, tuple[int | None, ...]]
    outputs: dict[str, tuple[int | None, ...]]
    metadata: dict[str, str] = field(default_factory=dict)


def output(*found: tuple[tuple[float, float, float, float], tuple[float, ...]]) -> dict[str, np.ndarray]:
    """The head's tensor: boxes as centre, width and height, with a confidence for each class."""
    tensor = np.zeros((1, 4 + len(found[0][1]), BOXES), np.float32)
    for index, (box, confidences) in enumerate(found):
        tensor[0, :, index] = [*box, *confidences]
    return {"output0": tensor}


def yolo(names: str = "{0: 'person', 1: 'bus'}", **metadata: str) -> Yolo:
    """A head with two classes."""
    graph = Graph({"images": (None, 3, None, None)}, {"output0": (None, 6, None)}, {"names": names, **metadata})
    head = heads.of(graph)  # type: ignore[arg-type]
    assert isinstance(head, Yolo)
    return head


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        ("{0: 'person', 1: 'bus'}", ("person", "bus")),
        ("{1: 'bus'}", ("0", "bus")),
        ("", ("0", "1")),
        ("['a', 'b']", ("a", "b")),
        ("['a', ['b']]", ("a", "1")),
        ("['a']", ("a", "1")),
        ("{'a', 'b'}", ("0", "1")),
        ("__import__('os').getcwd()", ("0", "1")),
        ("(" * 5000, ("0", "1")),
        ("{{}}", ("0", "1")),
        (f"{{0: 0x{'f' * 5000}, 1: ['bus']}}", ("0", "1")),
        (r"{0: 'a\ud800b', 1: '\U0001f642'}", ("a?b", "\U0001f642")),
    ],
)
def test_labels_come_from_the_file_and_nothing_in_it_is_run(names: str, labels: tuple[str, ...]) -> None:
    """Numbers where it has none."""
    assert yolo(names).labels == labels


@pytest.mark.parametrize(
    ("declared", "size"),
    [("[320, 416]", (320, 416)), ("", (640, 640)), ("[0, 99999999]", (640, 640)), ("[1]", (640, 640))],
)
def test_the_size_is_the_shape_or_what_the_file_declares(declared: str, size: tuple[int, int]) -> None:
    """640 pixels where neither says."""
    assert yolo(imgsz=declared).size == size
    fixed = Graph({"images": (1, 3, 96, 128)}, {"o": (1, 6, 10)}, {"imgsz": declared})
    assert heads.of(fixed).size == (96, 128)  # type: ignore[arg-type]


def test_boxes_are_read_as_corners_with_their_best_class() -> None:
    """What is not sure enough is left out."""
    found = yolo().candidates(output(((100, 50, 40, 20), (0.2, 0.9)), ((10, 10, 4, 4), (0.24, 0.1))), 0.25)
    assert found.boxes.tolist() == [[80, 40, 120, 60]]
    assert found.classes.tolist() == [1]
    assert found.confidences.tolist() == pytest.approx([0.9])
    assert found.keypoints.shape == (1, 0, 2)


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_left_out(odd: float) -> None:
    """In a box or in a confidence."""
    fine = (5.0, 5.0, 4.0, 4.0)
    tensor = output(((odd, 5, 4, 4), (0.9, 0)), ((5, 5, odd, 4), (0.9, 0)), (fine, (odd, 0)), (fine, (0.8, 0)))
    found = yolo().candidates(tensor, 0.25)
    assert found.confidences.tolist() == pytest.approx([0.8])


def test_overlaps_of_a_class_are_one_object_and_those_of_two_are_two() -> None:
    """Per class, as the API says."""
    head = yolo()
    box = (50.0, 50.0, 20.0, 20.0)
    found = head.candidates(output((box, (0.5, 0)), (box, (0.9, 0)), (box, (0, 0.7))), 0.25)
    kept = head.select(found, Overlap(0.45), 10)
    assert kept.confidences.tolist() == pytest.approx([0.9, 0.7])
    assert head.select(found, Overlap(0.45), 1).confidences.tolist() == pytest.approx([0.9])


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        ({"a": (1, 3, 64, 64), "b": (1, 3, 64, 64)}, {"o": (1, 6, 10)}),
        ({"a": (1, 1, 64, 64)}, {"o": (1, 6, 10)}),
        ({"a": (1, 3, 64, 64)}, {"o": (1, 4, 10)}),
        ({"a": (1, 3, 64, 64)}, {"o": (1, 2, 3, 1000)}),
        ({"a": (1, 64, 64, 3)}, {"r": (1, 896, 16), "c": (1, 896, 1)}),
        ({"a": (1, 192, 192, 3)}, {"o": (1, 1404)}),
    ],
)
def test_another_model_is_refused_with_what_came(
    inputs: dict[str, tuple[int, ...]], outputs: dict[str, tuple[int, ...]]
) -> None:
    """And with what was expected."""
    with pytest.raises(FailedPrecondition) as caught:
        heads.of(Graph(dict(inputs), dict(outputs)))  # type: ignore[arg-type]
    assert caught.value.reason == "MODEL_UNSUPPORTED"
    assert str(next(iter(outputs.values()))) in caught.value.message
    assert "(1, 4 + classes, boxes)" in caught.value.message


@pytest.mark.parametrize("size", [(4097, 640), (640, 4097), (100_000, 100_000)])
def test_an_input_beyond_what_can_be_borne_is_refused(size: tuple[int, int]) -> None:
    """It ended the process that looked at it, or made an answer that nobody believed."""
    with pytest.raises(FailedPrecondition, match="at most 4096 x 4096") as caught:
        heads.of(Graph({"images": (1, 3, *size)}, {"o": (1, 6, 10)}))  # type: ignore[arg-type]
    assert caught.value.reason == "MODEL_UNSUPPORTED"


def test_the_largest_input_is_taken() -> None:
    """4,096 pixels a side."""
    graph = Graph({"images": (1, 3, 4096, 4096)}, {"o": (1, 6, 10)})
    assert heads.of(graph).size == (4096, 4096)  # type: ignore[arg-type]
