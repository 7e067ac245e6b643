"""Boxes there and back, and the suppression of overlaps against its plain definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facetmesh.detection.heads.geometry import Candidates, Overlap, least_size, lengths, letterbox, overlaps, suppress

sizes = st.integers(1, 3000)


def candidates(boxes: object, confidences: object, classes: object = None, keypoints: object = None) -> Candidates:
    """Candidates from lists."""
    count = len(np.asarray(confidences))
    return Candidates(
        np.asarray(boxes, np.float32).reshape(-1, 4),
        np.asarray(confidences, np.float32),
        np.zeros(count, np.int64) if classes is None else np.asarray(classes, np.int64),
        np.zeros((count, 0, 2), np.float32) if keypoints is None else np.asarray(keypoints, np.float32),
        np.zeros((count, 0), np.float32),
    )


@given(width=sizes, height=sizes, size=st.sampled_from([(320, 320), (128, 128), (384, 640)]), scale=st.integers(1, 8))
def test_points_come_back_from_where_they_went(width: int, height: int, size: tuple[int, int], scale: int) -> None:
    """Whatever the image's shape, and at whatever scale it was decoded."""
    pixels = np.zeros((-(-height // scale), -(-width // scale), 3), np.uint8)
    canvas, placement = letterbox(pixels, size, (height, width), fill=114)
    assert canvas.shape == (1, *size, 3)
    points = np.array([[0, 0], [width, height], [width / 3, height / 2]], np.float32)
    inside = points * (placement.scale_x, placement.scale_y) + (placement.left, placement.top)
    assert (inside >= 0).all()
    assert (inside <= np.array(size[::-1]) + 1e-3).all()
    np.testing.assert_allclose(placement.to_image(inside, width, height), points, rtol=1e-4, atol=1e-2)


def test_the_image_lies_in_the_middle_and_the_rest_is_filled() -> None:
    """Twice as wide as high."""
    canvas, _ = letterbox(np.full((50, 100, 3), 7, np.uint8), (40, 40), (50, 100), fill=114)
    assert (canvas[0, 10:30] == 7).all()
    assert (canvas[0, :10] == 114).all()
    assert (canvas[0, 30:] == 114).all()


@pytest.mark.parametrize(
    ("size", "original", "least"),
    [
        ((320, 320), (1080, 810), (320, 256)),
        ((320, 320), (1080, 1920), (192, 320)),
        ((320, 320), (500, 500), (320, 320)),
        ((640, 640), (1080, 1920), (384, 640)),
        ((640, 640), (3, 4000), (384, 640)),
        ((100, 100), (60, 50), (100, 100)),
        ((384, 640), (1080, 1920), (384, 640)),
        ((384, 640), (1920, 1080), (384, 384)),
    ],
)
def test_no_more_input_than_the_image_needs(
    size: tuple[int, int], original: tuple[int, int], least: tuple[int, int]
) -> None:
    """One of few sizes; the image lies there at the same scale as in the whole input."""
    assert least_size(size, original, 64) == least
    pixels = np.zeros((*original, 3), np.uint8)
    (_, whole), (_, small) = (letterbox(pixels, one, original, fill=0) for one in (size, least))
    assert (small.scale_x, small.scale_y) == (whole.scale_x, whole.scale_y)


@given(st.tuples(sizes, sizes), st.tuples(sizes, sizes), st.sampled_from([32, 64]))
def test_the_image_fits_into_its_least_input(size: tuple[int, int], original: tuple[int, int], stride: int) -> None:
    """Which is no larger than the whole, and along each side a multiple of the stride or as long."""
    least = least_size(size, original, stride)
    scale = min(size[0] / original[0], size[1] / original[1])
    for side, whole, length in zip(least, size, original, strict=True):
        assert min(whole, round(length * scale)) <= side <= whole
        assert side == whole or side % stride == 0
        assert side in lengths(whole, stride)


def test_points_outside_move_onto_the_edge() -> None:
    """A box never leaves its image."""
    _, placement = letterbox(np.zeros((50, 100, 3), np.uint8), (40, 40), (50, 100), fill=0)
    points = np.array([[-5, -5], [1e9, 1e9]], np.float32)
    assert placement.to_image(points, 100, 50).tolist() == [[0, 0], [100, 50]]


@pytest.mark.parametrize(
    ("box", "expected"),
    [((0, 0, 2, 2), 1.0), ((1, 0, 3, 2), 1 / 3), ((2, 0, 4, 2), 0.0), ((5, 5, 6, 6), 0.0), ((1, 1, 1, 1), 0.0)],
)
def test_overlap(box: tuple[float, ...], expected: float) -> None:
    """With the square from 0 to 2."""
    square = np.array([0, 0, 2, 2], np.float32)
    assert overlaps(square, np.array([box], np.float32))[0] == pytest.approx(expected)


boxes_strategy = st.lists(
    st.tuples(*[st.integers(0, 30)] * 2, *[st.integers(1, 15)] * 2, st.integers(1, 99), st.integers(0, 2)), max_size=25
)


@given(found=boxes_strategy, threshold=st.floats(0, 1), at_most=st.integers(1, 30), across=st.booleans())
def test_suppression_is_what_it_is_defined_as(
    found: list[tuple[int, ...]], threshold: float, at_most: int, *, across: bool
) -> None:
    """Best first; one more is kept if it overlaps none of its class that was kept, or none at all."""
    boxes = [(x, y, x + w, y + h) for x, y, w, h, _, _ in found]
    given_candidates = candidates(boxes, [c / 100 for *_, c, _ in found], [k for *_, k in found])
    expected: list[int] = []
    for index in sorted(range(len(found)), key=lambda i: -found[i][4]):
        box = np.array(boxes[index], np.float32)
        kept = [np.array(boxes[i], np.float32) for i in expected if across or found[i][5] == found[index][5]]
        if all(overlaps(other, box[np.newaxis])[0] <= np.float32(threshold) for other in kept):
            expected.append(index)
    result = suppress(given_candidates, Overlap(threshold, across_classes=across), at_most)
    assert result.boxes.tolist() == [list(boxes[i]) for i in expected[:at_most]]
    assert (np.diff(result.confidences) <= 0).all()


def test_merging_takes_the_weighted_mean_of_place_and_points() -> None:
    """And the confidence of the best."""
    result = suppress(
        candidates([(0, 0, 10, 10), (2, 0, 12, 10), (50, 50, 60, 60)], [0.75, 0.25, 0.5],
                   keypoints=[[[1, 1]], [[5, 1]], [[55, 55]]]),
        Overlap(0.3), 10, merge=True,
    )  # fmt: skip
    np.testing.assert_allclose(result.boxes, [(0.5, 0, 10.5, 10), (50, 50, 60, 60)], rtol=1e-6)
    np.testing.assert_allclose(result.keypoints[0], [[2, 1]], rtol=1e-6)
    assert result.confidences.tolist() == [0.75, 0.5]


def test_boxes_without_area_end() -> None:
    """They overlap nothing, not even themselves."""
    result = suppress(candidates([(1, 1, 1, 1)] * 3, [0.1, 0.2, 0.3]), Overlap(0.5), 10)
    assert len(result.confidences) == 3
