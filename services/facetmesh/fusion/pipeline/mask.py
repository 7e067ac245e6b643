"""Which pixels belong to the face, and which of them are skin."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from facetmesh.fusion.pipeline import mesh
from facetmesh.fusion.pipeline.rendering import FEATHER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from facetmesh.fusion.pipeline.mesh import Points

    Weights = NDArray[np.float32]
    Shape = tuple[int, int]

INSET = 0.10
"""How far within the outline the fused face ends, in eye distances: the target keeps its own contour."""
SHARPEST_PX = 0.5
"""No edge is sharper than a pixel's."""
FEATHERS_INSIDE = 1.6
"""How many feathers further in the edge lies that fades over a wider one."""
BROW_RISE = 0.11
"""How far above the brows the fused face ends: the forehead, with fringe and hairline, stays the target's."""
BROW_FADE = 0.15
"""Over what height it fades there."""
BARE_RISE = 0.15
"""How far above the brows the forehead's skin tells of its light where the forehead stays the target's."""
CORE = 0.75
"""So much of the outline is face whatever its colour: shadows and highlights there are no hair."""
_SKIN_WITHIN = (2.5, 4.5)
"""Up to how many standard deviations from its mean a colour is skin, and beyond how many it is not."""
_TRIMMED = 0.85
_FEWEST = 50
_SHIFT = 4


def extent(points: Points, shape: Shape, feather: float = FEATHER) -> Weights:
    """How much each pixel belongs to the face that is to be replaced, 0 to 1.

    Args:
        points: The face's points in the frame, (468, 2).
        shape: The frame's rows and columns.
        feather: Over what width its edge fades, in eye distances.
    """
    unit = mesh.eye_distance(points)
    inset = INSET + FEATHERS_INSIDE * max(0.0, feather - FEATHER)
    outline = grown(filled([points[list(mesh.OVAL)]], shape), -inset * unit)
    soft = cv2.GaussianBlur(outline, (0, 0), max(SHARPEST_PX, feather * unit))
    return (soft * below_brows(points, shape, rise=BROW_RISE, fade=BROW_FADE)).astype(np.float32)


def visible(points: Points, likeness_s: Weights, likeness_t: Weights) -> Weights:
    """How much each pixel may be replaced, 0 to 1: not where hair or a hand covers either face.

    Args:
        points: The face's points in the frame, (468, 2).
        likeness_s: How much the warped source looks like skin there.
        likeness_t: How much the target does.
    """
    unit = mesh.eye_distance(points)
    shape = likeness_s.shape[0], likeness_s.shape[1]
    centre = points[list(mesh.OVAL)].mean(axis=0)
    core = filled([(centre + (points[list(mesh.OVAL)] - centre) * CORE).astype(np.float32)], shape)
    core = np.maximum(core * below_brows(points, shape, rise=0, fade=0.05), features(points, shape))
    core = cv2.GaussianBlur(core, (0, 0), 0.04 * unit)
    both = cv2.GaussianBlur(grown(likeness_s * likeness_t, -0.04 * unit), (0, 0), 0.05 * unit)
    seen: Weights = np.maximum(core, np.clip(2 * both - 1, 0, 1)).astype(np.float32)
    return seen


def likeness(lab: NDArray[np.float32], points: Points) -> Weights:
    """How much each pixel looks like this face's skin: 1 as skin does, 0 as hair, cloth or glasses do.

    Mahalanobis' distance from the colours of the cheeks, nose and chin, trimmed of
    what does not belong.

    Args:
        lab: The image in CIE Lab, float32, (rows, columns, 3).
        points: The face's points in it, (468, 2).
    """
    shape = lab.shape[0], lab.shape[1]
    sample = lab[plain_skin(points, shape)].astype(np.float64)
    if len(sample) < _FEWEST:
        return np.ones(shape, np.float32)
    noise = np.diag([9.0, 2.0, 2.0])
    for _ in range(3):
        distance = _distance(sample, sample.mean(axis=0), np.cov(sample.T) + noise)
        kept = sample[distance <= np.quantile(distance, _TRIMMED)]
        sample = kept if len(kept) >= _FEWEST else sample
    distance = _distance(lab.reshape(-1, 3), sample.mean(axis=0), 1.5 * np.cov(sample.T) + noise).reshape(shape)
    low, high = _SKIN_WITHIN
    return np.clip((high - distance) / (high - low), 0, 1).astype(np.float32)


def bare_skin(points: Points, likeness_s: Weights, likeness_t: Weights, *, forehead: bool = True) -> Weights:
    """1 where both images show the face's skin and none of its features, 0 elsewhere.

    Where there is hardly any, all of the face counts.

    Args:
        points: The face's points in the frame, (468, 2).
        likeness_s: How much the warped source looks like skin there.
        likeness_t: How much the target does.
        forehead: Whether all of it counts, or only what lies right above the brows: a fringe of the skin's colour
            would be taken for dark skin.
    """
    unit = mesh.eye_distance(points)
    shape = likeness_s.shape[0], likeness_s.shape[1]
    within = grown(filled([points[list(mesh.OVAL)]], shape), -0.12 * unit) > 0.5  # noqa: PLR2004 - half
    if not forehead:
        within &= below_brows(points, shape, rise=BARE_RISE, fade=0.01) > 0.5  # noqa: PLR2004 - half
    bare = within & (features(points, shape, 0.1) < 0.5) & (np.minimum(likeness_s, likeness_t) > 0.7)  # noqa: PLR2004
    return (bare if bare.sum() >= _FEWEST else within).astype(np.float32)


def features(points: Points, shape: Shape, margin: float = 0.01) -> Weights:
    """1 on eyes, brows, lips and nostrils, and margin eye distances around them; 0 elsewhere."""
    outlines = (mesh.RIGHT_EYE, mesh.LEFT_EYE, mesh.RIGHT_BROW, mesh.LEFT_BROW, mesh.LIPS, mesh.NOSTRILS)
    hulls = [cv2.convexHull(points[list(outline)])[:, 0].astype(np.float32) for outline in outlines]
    return grown(filled(hulls, shape), margin * mesh.eye_distance(points))


def opening(points: Points, outline: Sequence[int], shape: Shape) -> Weights:
    """1 within the mouth or an eye, with a narrow soft edge inside; 0 elsewhere."""
    unit = mesh.eye_distance(points)
    hole = grown(filled([points[list(outline)]], shape), -0.01 * unit)
    return cv2.GaussianBlur(hole, (0, 0), max(0.5, 0.015 * unit)).astype(np.float32)


def plain_skin(points: Points, shape: Shape) -> NDArray[np.bool_]:
    """Where cheeks, nose and chin are, and none of the face's features."""
    face = filled([points[list(mesh.OVAL)]], shape) * (1 - features(points, shape, 0.1))
    plain: NDArray[np.bool_] = face * below_brows(points, shape, rise=0, fade=0.01) > 0.5  # noqa: PLR2004 - half
    return plain


def below_brows(points: Points, shape: Shape, *, rise: float, fade: float) -> Weights:
    """1 below a line that runs rise eye distances above the brows, 0 above it, over a height of fade."""
    right, left = mesh.eye_centres(points)
    unit = mesh.eye_distance(points)
    across = (left - right) / unit
    down = np.array([-across[1], across[0]], np.float32)
    line = points[list(mesh.BROW_TOPS)] - down * rise * unit
    along = line @ across
    order = np.argsort(along)
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32)
    edge = np.interp((x * across[0] + y * across[1]).ravel(), along[order], (line @ down)[order]).reshape(shape)
    depth = (x * down[0] + y * down[1] - edge) / unit
    below: Weights = np.clip(depth / fade + 0.5, 0, 1).astype(np.float32)
    return below


def _distance(
    colours: NDArray[np.floating], mean: NDArray[np.float64], covariance: NDArray[np.float64]
) -> NDArray[np.float64]:
    off = (colours - mean) @ np.linalg.inv(np.linalg.cholesky(covariance)).T
    distance: NDArray[np.float64] = np.sqrt((off * off).sum(axis=1))
    return distance


def filled(outlines: Sequence[Points], shape: Shape) -> Weights:
    """1 within the outlines, 0 outside, with smooth edges."""
    image = np.zeros(shape, np.uint8)
    for outline in outlines:
        cv2.fillPoly(image, [np.rint(outline * (1 << _SHIFT)).astype(np.int32)], 255, cv2.LINE_AA, _SHIFT)
    return (image / np.float32(255)).astype(np.float32)


def grown(weights: Weights, by: float) -> Weights:
    """The region made wider by so many pixels, or narrower when negative."""
    size = 2 * max(1, round(abs(by))) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    return (cv2.dilate if by > 0 else cv2.erode)(weights, kernel).astype(np.float32)
