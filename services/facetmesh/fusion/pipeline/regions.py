"""The parts of a target that a request may have replaced."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from facetmesh.fusion.pipeline import mask, mesh
from facetmesh.fusion.pipeline.rendering import Mask, Region, Rendering

if TYPE_CHECKING:
    from collections.abc import Sequence

    from facetmesh.fusion.pipeline.mask import Shape, Weights
    from facetmesh.fusion.pipeline.mesh import Points

_OUTLINES: dict[Region, tuple[tuple[Sequence[int], ...], float]] = {
    Region.EYES: (((*mesh.RIGHT_EYE, *mesh.RIGHT_BROW), (*mesh.LEFT_EYE, *mesh.LEFT_BROW)), 0.08),
    Region.NOSE: ((mesh.NOSE,), 0.03),
    Region.MOUTH: ((mesh.LIPS,), 0.10),
}
"""What a region's hulls are around, and by how many eye distances they are wider."""
_BARE = 0.04
"""How far from eyes, brows and lips skin begins, in eye distances."""


def extent(points: Points, shape: Shape, rendering: Rendering) -> Weights:
    """How much each pixel belongs to what is to be replaced, 0 to 1.

    Args:
        points: The face's points in the frame, (468, 2).
        shape: The frame's rows and columns.
        rendering: Which mask, and how wide its edge fades.
    """
    unit = mesh.eye_distance(points)
    sigma = max(mask.SHARPEST_PX, rendering.feather * unit)
    match rendering.mask:
        case Mask.FACE:
            return mask.extent(points, shape, rendering.feather)
        case Mask.HULL:
            whole = _hulls(points, shape, [range(mesh.POINTS)])
            return _soft(mask.grown(whole, -mask.FEATHERS_INSIDE * sigma), sigma)
        case Mask.BOX:
            (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
            corners = np.array([(left, top), (right, top), (right, bottom), (left, bottom)], np.float32)
            return _soft(mask.grown(mask.filled([corners], shape), -mask.FEATHERS_INSIDE * sigma), sigma)
        case Mask.REGIONS:
            parts = [_region(points, shape, region, rendering.feather) for region in rendering.regions]
            # Wherever two parts meet there is no edge between them.
            joined: Weights = np.max(parts, axis=0).astype(np.float32)
            return joined


def _region(points: Points, shape: Shape, region: Region, feather: float) -> Weights:
    unit = mesh.eye_distance(points)
    sigma = max(mask.SHARPEST_PX, feather * unit)
    if region is Region.SKIN:
        parts = (mesh.RIGHT_EYE, mesh.LEFT_EYE, mesh.RIGHT_BROW, mesh.LEFT_BROW, mesh.LIPS)
        features = mask.grown(_hulls(points, shape, parts), (_BARE + feather / 2) * unit)
        return (mask.extent(points, shape, feather) * (1 - _soft(features, sigma / 2))).astype(np.float32)
    outlines, margin = _OUTLINES[region]
    wide = mask.grown(_hulls(points, shape, outlines), margin * unit)
    within = mask.filled([points[list(mesh.OVAL)]], shape)
    return _soft(mask.grown(within, -sigma) * wide, sigma)


def _hulls(points: Points, shape: Shape, outlines: Sequence[Sequence[int]]) -> Weights:
    hulls = [cv2.convexHull(points[list(outline)])[:, 0].astype(np.float32) for outline in outlines]
    return mask.filled(hulls, shape)


def _soft(weights: Weights, sigma: float) -> Weights:
    return cv2.GaussianBlur(weights, (0, 0), sigma).astype(np.float32)
