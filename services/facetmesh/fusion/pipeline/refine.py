"""A second try: where the fused face's points were missed, the source's are moved.

Points of two faces do not quite stand for the same places on them. FaceMesh, shown
the fused face, tells by how much, as the eye would.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from facetmesh.fusion.pipeline.mesh import LEFT_EYE, RIGHT_EYE
from facetmesh.fusion.pipeline.warp import similarity

if TYPE_CHECKING:
    from facetmesh.fusion.pipeline.landmarks import Face

STEP = 0.7
"""How much of an error is corrected: FaceMesh itself is not sure of the rest."""
EYE_REACH = 0.33
"""What is so near to the middle of an eye belongs to it, in eye distances."""
LARGEST = 0.1
"""By at most how much a point is moved, in eye distances."""


def corrected(source: Face, target: Face, fused: Face) -> Face:
    """The source's face with its points moved, so that a second fusion meets the target's better.

    Args:
        source: The face that was taken.
        target: The face that it was to fit.
        fused: The face that came out, in the target's frame.
    """
    missed = STEP * (fused.flat - target.flat)
    for eye in (RIGHT_EYE, LEFT_EYE):  # FaceMesh takes lowered lids for open ones: an eye is moved as a whole
        centre = target.flat[list(eye)].mean(axis=0)
        near = np.linalg.norm(target.flat - centre, axis=1) < EYE_REACH * target.unit
        missed[near] = missed[near].mean(axis=0)
    length = np.linalg.norm(missed, axis=1, keepdims=True)
    missed *= np.minimum(1, LARGEST * target.unit / np.maximum(length, 1e-6))
    points = source.points.copy()
    points[:, :2] += missed @ similarity(target.flat, source.flat)[:, :2].T
    return replace(source, points=points)
