"""The stages put together: one face of one photo into one face of another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from facetmesh.fusion.pipeline import blend, colour, mask, mesh, warp
from facetmesh.kit.errors import InvalidArgument

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from facetmesh.fusion.pipeline.landmarks import Face
    from facetmesh.fusion.pipeline.mesh import Points

    Pixels = NDArray[np.uint8]
    Image = NDArray[np.float32]
    Weights = NDArray[np.float32]

MARGIN = 0.25
"""How far beyond the face's points the work looks, relative to their extent."""
MAX_UNIT_PX = 400.0
"""A face with its eyes further apart is worked on smaller, to bound time and memory."""
MASK_UNIT_PX = 64.0
"""Masks are soft: they are made at this eye distance at most and then enlarged."""
MAX_COVERED = 0.2
"""How much of a face may be hidden by something of another colour."""
VISIBLE = 0.002
"""Less than half a step of 255: pixels with so little of the source stay as they were."""
OPEN = 0.05
"""An eye or a mouth whose lids or lips are so far apart, in eye distances, is open."""
OPENINGS = ((mesh.MOUTH, 13, 14), (mesh.RIGHT_EYE, 159, 145), (mesh.LEFT_EYE, 386, 374))
"""What can open: outline, upper and lower middle."""


def fuse(source: Pixels, source_face: Face, target: Pixels, target_face: Face) -> Pixels:
    """The target with the source's face, in the target's pose, expression and light.

    Args:
        source: RGB, uint8, (height, width, 3).
        source_face: The face to take.
        target: The same, of any size.
        target_face: The face to replace.

    Returns:
        An image of the target's size; outside of the face it is the target, byte for byte.

    Raises:
        InvalidArgument: FACE_COVERED: one of the faces wears a mask, or is burnt out.
    """
    _check_bare(source, source_face, "source")
    _check_bare(target, target_face, "target")
    x, y, columns, rows = _window(target_face.flat, target)
    window = target[y : y + rows, x : x + columns]
    unit = target_face.unit
    scale = min(1.0, MAX_UNIT_PX / unit)
    small = _resized(window, scale)
    points = _scaled(target_face.flat - (x, y), scale)
    warped = warp.resample(
        source,
        warp.dense_map(source_face.flat, points, (small.shape[0], small.shape[1])),
        scale=unit * scale / source_face.unit,
    )
    alpha, front = _composed(warped, source_face.flat, small, points)
    fused = blend.multiband(front, _unit(small), alpha)
    pixels = np.clip(np.rint(fused * 255), 0, 255).astype(np.uint8)
    if scale < 1:
        pixels = cv2.resize(pixels, (columns, rows), interpolation=cv2.INTER_CUBIC).astype(np.uint8)
        alpha = cv2.resize(alpha, (columns, rows), interpolation=cv2.INTER_LINEAR).astype(np.float32)
    result = target.copy()
    result[y : y + rows, x : x + columns] = np.where((alpha > VISIBLE)[..., np.newaxis], pixels, window)
    return result


def _composed(warped: Pixels, source_points: Points, target: Pixels, points: Points) -> tuple[Weights, Image]:
    """How much of the source each pixel takes, and the source in the target's colours."""
    source_lab, target_lab = _lab(warped), _lab(target)
    scale = min(1.0, MASK_UNIT_PX / mesh.eye_distance(points))
    coarse = _scaled(points, scale)
    like_s = mask.likeness(_resized(source_lab, scale), coarse)
    like_t = mask.likeness(_resized(target_lab, scale), coarse)
    shape = like_s.shape[0], like_s.shape[1]
    visible = mask.visible(coarse, like_s, like_t)
    for outline, upper, lower in OPENINGS:
        ours, theirs = (_gap(face, upper, lower) for face in (source_points, points))
        if theirs > OPEN and ours < theirs / 2:  # the source has nothing to show there
            visible = visible * (1 - mask.opening(coarse, outline, shape))
    size = target.shape[1], target.shape[0]
    unit = mesh.eye_distance(coarse)
    soft = cv2.GaussianBlur(like_s * (1 - mask.features(coarse, shape, 0.03)), (0, 0), max(0.5, 0.03 * unit))
    skin, like, visible, extent = (
        cv2.resize(weights, size, interpolation=cv2.INTER_LINEAR).astype(np.float32)
        for weights in (mask.bare_skin(coarse, like_s, like_t), soft, visible, mask.extent(coarse, shape))
    )
    matched = colour.match(source_lab, target_lab, skin, like, mesh.eye_distance(points))
    front, back = cv2.cvtColor(matched, cv2.COLOR_LAB2RGB), _unit(target)
    # Coarse bands reach far: what must not be seen is replaced before, so that it does not bleed into them.
    front = back + (front - back) * visible[..., np.newaxis]
    return (extent * visible).astype(np.float32), front.astype(np.float32)


def _check_bare(image: Pixels, face: Face, which: str) -> None:
    x, y, columns, rows = _window(face.flat, image)
    scale = min(1.0, MASK_UNIT_PX / face.unit)
    small = _resized(image[y : y + rows, x : x + columns], scale)
    if mask.covered(_lab(small), _scaled(face.flat - (x, y), scale)) > MAX_COVERED:
        raise InvalidArgument(
            f"The {which} face is covered, as by a mask, or its colours are burnt out.",
            reason="FACE_COVERED", metadata={"image": which},
        )


def _window(points: Points, image: Pixels) -> tuple[int, int, int, int]:
    """x, y, columns and rows of the part of the image that the work looks at."""
    low, high = points.min(axis=0), points.max(axis=0)
    margin = MARGIN * float((high - low).max())
    x, y = (max(0, int(value)) for value in low - margin)
    right, bottom = (
        min(side, int(value) + 1) for side, value in zip((image.shape[1], image.shape[0]), high + margin, strict=True)
    )
    return x, y, right - x, bottom - y


def _gap(points: Points, upper: int, lower: int) -> float:
    return float(np.linalg.norm(points[upper] - points[lower])) / mesh.eye_distance(points)


def _scaled(points: Points, scale: float) -> Points:
    """Points in an image that was resized: pixel centres lie at halves."""
    return ((points + 0.5) * scale - 0.5).astype(np.float32)


def _resized(image: NDArray[Any], scale: float) -> NDArray[Any]:
    if scale == 1:
        return image
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(image.dtype)


def _lab(image: Pixels) -> Image:
    return cv2.cvtColor(_unit(image), cv2.COLOR_RGB2LAB).astype(np.float32)


def _unit(image: Pixels) -> Image:
    """The image in float32, 0 to 1."""
    return (image / np.float32(255)).astype(np.float32)
