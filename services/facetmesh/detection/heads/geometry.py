"""Boxes and points, from an image to a model's input and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Ints = NDArray[np.int64]

# Below this scale linear interpolation skips pixels.
_SHRINK_BY_AREA = 0.5
_SHARES = (3, 4, 5)


@dataclass(frozen=True, slots=True)
class Candidates:
    """Objects that a model may have seen, in pixels of its input."""

    boxes: Floats
    """(n, 4): x_min, y_min, x_max, y_max."""
    confidences: Floats
    """(n,): 0 to 1."""
    classes: Ints
    """(n,): class ids."""
    keypoints: Floats
    """(n, k, 2): x and y of each point; k may be 0."""
    extras: Floats
    """(n, m): what else its head wants to know of each; m may be 0."""

    def __getitem__(self, index: Ints | NDArray[np.bool_]) -> Self:
        """Returns those at these indices, or where a mask says so."""
        return type(self)(
            self.boxes[index], self.confidences[index], self.classes[index], self.keypoints[index], self.extras[index]
        )


@dataclass(frozen=True, slots=True)
class Overlap:
    """When two boxes are of one object."""

    iou_threshold: float
    """They overlap more than this."""
    across_classes: bool = False
    """Whether they are so even where their classes differ."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where an image lies in a model's input, as `letterbox` put it there."""

    scale_x: float
    """Columns of the input for a column of the image."""
    scale_y: float
    """Rows of the input for a row of the image."""
    left: int
    """The image's first column in the input."""
    top: int
    """The image's first row in the input."""
    size: tuple[int, int]
    """Height and width of the input."""

    def to_image(self, points: Floats, width: int, height: int) -> Floats:
        """Maps (..., 2) points of the input to the image, and moves those outside onto its edge.

        Args:
            points: x and y, in pixels of the input.
            width: The image's columns.
            height: The image's rows.
        """
        origin = np.array([self.left, self.top], np.float32)
        scale = np.array([self.scale_x, self.scale_y], np.float32)
        corner = np.array([width, height], np.float32)
        mapped: Floats = np.clip((points - origin) / scale, 0, corner)
        return mapped


def lengths(side: int, stride: int) -> tuple[int, ...]:
    """How long a side of the input may be, the shortest first, where a model takes any: enough for 16:9, 4:3 and 1:1.

    Few, because a model is compiled for each size.

    Args:
        side: The length in the whole input.
        stride: What else is a multiple of it.
    """
    return tuple(min(side, stride * -(-share * side // (_SHARES[-1] * stride))) for share in _SHARES)


def least_size(size: tuple[int, int], original: tuple[int, int], stride: int) -> tuple[int, int]:
    """The least input that holds an image as `letterbox` scales it for the whole one.

    Args:
        size: Height and width of the whole input.
        original: Height and width of the image.
        stride: As for `lengths`.
    """
    scale = min(size[0] / original[0], size[1] / original[1])
    height, width = (
        next(one for one in lengths(side, stride) if one >= min(side, round(length * scale)))
        for side, length in zip(size, original, strict=True)
    )
    return height, width


def letterbox(
    pixels: NDArray[np.uint8], size: tuple[int, int], original: tuple[int, int], *, fill: int
) -> tuple[NDArray[np.uint8], Placement]:
    """Fits an image into the middle of a model's input without distorting it.

    Args:
        pixels: (h, w, 3), at any scale.
        size: Height and width of the input.
        original: Height and width of the image at its full scale, to which the
            placement refers.
        fill: Value of the pixels around it.

    Returns:
        The input, (1, height, width, 3), and where the image lies in it.
    """
    rows, columns = original
    scale = min(size[0] / rows, size[1] / columns)
    height, width = max(1, round(rows * scale)), max(1, round(columns * scale))
    shrinking = width < _SHRINK_BY_AREA * pixels.shape[1]
    interpolation = cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
    top = (size[0] - height) // 2
    left = (size[1] - width) // 2
    canvas = np.full((1, *size, 3), fill, np.uint8)
    canvas[0, top : top + height, left : left + width] = cv2.resize(
        pixels, (width, height), interpolation=interpolation
    )
    return canvas, Placement(width / columns, height / rows, left, top, size)


def cover(
    pixels: NDArray[np.uint8], size: tuple[int, int], original: tuple[int, int]
) -> tuple[NDArray[np.uint8], Placement]:
    """Fills a model's input with the middle of an image, without distorting it.

    Args:
        pixels: (h, w, 3), at any scale.
        size: Height and width of the input.
        original: Height and width of the image at its full scale, to which the
            placement refers.

    Returns:
        The input, (1, height, width, 3), and where the image lies in it.
    """
    rows, columns = original
    scale = max(size[0] / rows, size[1] / columns)
    height, width = max(size[0], round(rows * scale)), max(size[1], round(columns * scale))
    interpolation = cv2.INTER_AREA if width < _SHRINK_BY_AREA * pixels.shape[1] else cv2.INTER_LINEAR
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    resized = np.asarray(cv2.resize(pixels, (width, height), interpolation=interpolation), np.uint8)
    middle = np.ascontiguousarray(resized[top : top + size[0], left : left + size[1]])
    return middle[np.newaxis], Placement(width / columns, height / rows, -left, -top, size)


def overlaps(box: Floats, boxes: Floats) -> Floats:
    """Returns the intersection over union of one box, (4,), with each of the boxes, (n, 4)."""
    # Column by column, and in one array that is reused: this runs once for each object that is found.
    x_min, y_min, x_max, y_max = boxes.T
    left, top, right, bottom = box
    shared = np.maximum(np.minimum(x_max, right) - np.maximum(x_min, left), 0)
    shared *= np.maximum(np.minimum(y_max, bottom) - np.maximum(y_min, top), 0)
    union = (right - left) * (bottom - top) + (x_max - x_min) * (y_max - y_min) - shared
    result: Floats = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return result


def box_overlaps(candidates: Candidates, index: int) -> Floats:
    """Returns how much one's box overlaps with each."""
    return overlaps(candidates.boxes[index], candidates.boxes)


def suppress(
    candidates: Candidates,
    overlap: Overlap,
    at_most: int,
    *,
    merge: bool = False,
    overlaps_with: Callable[[Candidates, int], Floats] = box_overlaps,
) -> Candidates:
    """Keeps, of those that overlap, the most confident: greedy non-maximum suppression.

    Args:
        candidates: What the model may have seen.
        overlap: When two are one object.
        at_most: So many are kept.
        merge: Whether what is kept takes the mean place of what it replaces,
            weighted by confidence, as BlazeFace's authors do (Bazarevsky et al.,
            2019, section 3.3); otherwise it stays as it is.
        overlaps_with: How much the one at an index overlaps with each.

    Returns:
        The kept ones, most confident first.
    """
    # A copy, in which what is kept may move: nothing is compared with it any more.
    ranked = candidates[np.argsort(-candidates.confidences, kind="stable")]
    left = np.ones(len(ranked.confidences), np.bool_)
    kept: list[int] = []
    for index in range(len(left)):
        if len(kept) == at_most:
            break
        if not left[index]:
            continue
        same = left & (overlaps_with(ranked, index) > overlap.iou_threshold)
        if not overlap.across_classes:
            same &= ranked.classes == ranked.classes[index]
        # A box without area does not even overlap itself.
        same[index] = True
        if merge:
            weights = ranked.confidences[same] / ranked.confidences[same].sum()
            ranked.boxes[index] = np.tensordot(weights, ranked.boxes[same], 1)
            ranked.keypoints[index] = np.tensordot(weights, ranked.keypoints[same], 1)
        left &= ~same
        kept.append(index)
    return ranked[np.array(kept, np.int64)]
