"""The source's pixels, moved to where the target's points are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from facetmesh.fusion.pipeline.mesh import OVAL, eye_distance, triangulate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from facetmesh.fusion.pipeline.mesh import Points

    Field = NDArray[np.float32]
    Weights = NDArray[np.float32]

_RINGS = (1.25, 1.6)
"""The outline again, so many times as large: carries the map beyond the face, as far as blending looks."""
_SMOOTHING = 0.03
"""Blur of the map in eye distances: hides the creases along the triangles' edges."""
_STRETCHED = (0.25, 0.45)
"""Pixels with less of the source's area than the first share show nothing of it; with the second or more, all."""
_SHIFT_BITS = 4
_SHRINK_BELOW = 0.75


def dense_map(source: Points, target: Points, shape: tuple[int, int]) -> Field:
    """Where in the source each pixel of the target's frame comes from.

    Piecewise affine over the triangles between the target's points, then smoothed.

    Args:
        source: The source's points, (468, 2).
        target: The same points in the target's frame, (468, 2).
        shape: Rows and columns of that frame.

    Returns:
        x and y in the source for each pixel, (rows, columns, 2). Far outside of the
        face it is the similarity that fits both faces best.
    """
    overall = similarity(target, source)
    outline = list(OVAL)
    source, target = _with_rings(source, outline), _with_rings(target, outline)
    rows, columns = shape
    triangles = triangulate(target)
    corners = np.concatenate([target[triangles], np.ones((len(triangles), 3, 1), np.float32)], axis=2)
    affines = np.concatenate([overall[np.newaxis], np.linalg.solve(corners, source[triangles]).transpose(0, 2, 1)])
    which = np.zeros(shape, np.int32)
    fixed = np.rint(target * (1 << _SHIFT_BITS)).astype(np.int32)
    for number, triangle in enumerate(triangles, start=1):
        cv2.fillConvexPoly(which, fixed[triangle], number, lineType=cv2.LINE_8, shift=_SHIFT_BITS)
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float32)
    chosen = affines.astype(np.float32)[which]
    moved = chosen[..., 0] * x[..., np.newaxis] + chosen[..., 1] * y[..., np.newaxis] + chosen[..., 2]
    # Only the departure from the similarity is smoothed, so that identical faces map identically.
    plain = overall[:, 0] * x[..., np.newaxis] + overall[:, 1] * y[..., np.newaxis] + overall[:, 2]
    departure = cv2.GaussianBlur(moved - plain.astype(np.float32), (0, 0), _SMOOTHING * eye_distance(target))
    field: Field = (plain + departure).astype(np.float32)
    return field


def shown(field: Field, *, scale: float, unit: float) -> Weights:
    """How much the source has to show at each pixel, 0 to 1: little where it is stretched, as on a far side.

    Args:
        field: Where each pixel comes from, (rows, columns, 2).
        scale: How much larger faces are in the map's frame than in the source.
        unit: The eye distance in the map's frame.
    """
    across, down = np.gradient(field, axis=1), np.gradient(field, axis=0)
    area = (across[..., 0] * down[..., 1] - across[..., 1] * down[..., 0]) * scale**2
    low, high = _STRETCHED
    weights = np.clip((area - low) / (high - low), 0, 1).astype(np.float32)
    return cv2.GaussianBlur(weights, (0, 0), _SMOOTHING * unit).astype(np.float32)


def resample(image: NDArray[np.uint8], field: Field, *, scale: float) -> NDArray[np.uint8]:
    """The image seen through a map.

    Args:
        image: (height, width, 3), uint8.
        field: Where each pixel comes from, (rows, columns, 2).
        scale: How much larger faces are in the map's frame than in the image; below
            1 the image is first made smaller, so that nothing aliases.
    """
    if scale < _SHRINK_BELOW:
        height, width = image.shape[:2]
        size = max(1, round(width * scale)), max(1, round(height * scale))
        factors = np.array([size[0] / width, size[1] / height], np.float32)
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
        field = (field + 0.5) * factors - 0.5
    return cv2.remap(
        image, field[..., 0], field[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101
    ).astype(np.uint8)


def similarity(points: Points, onto: Points) -> NDArray[np.float64]:
    """The turn, scale and shift that bring points nearest to others, (2, 3): Umeyama, 1991."""
    centre, goal = points.mean(axis=0), onto.mean(axis=0)
    a, b = (points - centre).astype(np.float64), (onto - goal).astype(np.float64)
    power = (a * a).sum()
    cos = (a * b).sum() / power
    sin = (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum() / power
    turn = np.array([[cos, -sin], [sin, cos]])
    return np.column_stack([turn, goal - turn @ centre])


def _with_rings(points: Points, outline: list[int]) -> Points:
    centre = points[outline].mean(axis=0)
    return np.concatenate([points, *(centre + (points[outline] - centre) * size for size in _RINGS)]).astype(np.float32)
