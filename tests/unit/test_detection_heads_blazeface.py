"""BlazeFace's head on made-up tensors."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from facetmesh.detection import heads
from facetmesh.detection.heads.blazeface import BlazeFace, anchors
from facetmesh.detection.heads.geometry import Overlap

if TYPE_CHECKING:
    from numpy.typing import NDArray


def blazeface(side: int = 128, boxes: int = 896) -> BlazeFace:
    """A head."""
    graph = SimpleNamespace(
        inputs={"input": (1, side, side, 3)}, outputs={"r": (1, boxes, 16), "c": (1, boxes, 1)}, metadata={}
    )
    head = heads.of(graph)  # type: ignore[arg-type]
    assert isinstance(head, BlazeFace)
    return head


def outputs(boxes: int = 896) -> dict[str, NDArray[np.float32]]:
    """Tensors in which nothing is found."""
    return {"r": np.zeros((1, boxes, 16), np.float32), "c": np.full((1, boxes, 1), -50, np.float32)}


@pytest.mark.parametrize(("side", "boxes"), [(128, 896), (256, 896), (192, 2304)])
def test_there_is_an_anchor_for_each_box(side: int, boxes: int) -> None:
    """In the middle of its cell."""
    head = blazeface(side, boxes)
    assert head.anchors.shape == (boxes, 2)
    assert (head.anchors > 0).all()
    assert (head.anchors < side).all()


def test_anchors_go_row_by_row_and_finer_maps_first() -> None:
    """MediaPipe's order: 16 x 16 cells with two boxes each, then 8 x 8 with six."""
    found = anchors(128, ((8, 2), (16, 6)))
    assert found[:4].tolist() == [[4, 4], [4, 4], [12, 4], [12, 4]]
    assert found[32].tolist() == [4, 12]
    assert found[512].tolist() == found[517].tolist() == [8, 8]
    assert found[518].tolist() == [24, 8]
    assert found[-1].tolist() == [120, 120]


def test_a_box_and_its_points_are_relative_to_the_anchor() -> None:
    """In pixels of the input."""
    head, tensors = blazeface(), outputs()
    tensors["r"][0, 600] = [1, 2, 20, 30, *range(12)]
    tensors["c"][0, 600] = 2
    found = head.candidates(tensors, 0.5)
    x, y = head.anchors[600]
    assert found.boxes.tolist() == [[x + 1 - 10, y + 2 - 15, x + 1 + 10, y + 2 + 15]]
    assert found.keypoints[0].tolist() == [[x + 2 * i, y + 2 * i + 1] for i in range(6)]
    assert found.confidences[0] == pytest.approx(1 / (1 + np.exp(-2)))
    assert head.keypoints[0] == "right_eye"


@pytest.mark.parametrize("logit", [1e30, -1e30, np.inf, -np.inf, np.nan])
def test_extreme_logits_are_no_trouble(logit: float) -> None:
    """Sure, not sure, or left out; never a warning."""
    head, tensors = blazeface(), outputs()
    tensors["c"][0, 7] = logit
    with np.errstate(all="raise"):
        found = head.candidates(tensors, 0.5)
    assert found.confidences.tolist() == ([1] if logit > 0 else [])


def test_boxes_that_are_not_finite_are_left_out() -> None:
    """However sure the model is."""
    head, tensors = blazeface(), outputs()
    tensors["r"][0, 7, 3] = np.nan
    tensors["c"][0, 7] = 9
    assert len(head.candidates(tensors, 0.5).confidences) == 0


def test_faces_that_overlap_are_merged() -> None:
    """As the model's authors do, against jitter."""
    head, tensors = blazeface(), outputs()
    for index, shift in ((0, 0), (1, 2)):
        tensors["r"][0, index] = [shift, 0, 20, 20, *[0] * 12]
        tensors["c"][0, index] = 3
    kept = head.select(head.candidates(tensors, 0.5), Overlap(0.3), 10)
    assert kept.boxes.tolist() == [pytest.approx([-5, -6, 15, 14])]
