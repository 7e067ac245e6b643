"""Further tries: where the fused face's points were missed, the source's are moved.

Points of two faces do not quite stand for the same places on them. FaceMesh, shown
the fused face, tells by how much, as the eye would.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from facetmesh.fusion.pipeline import mesh
from facetmesh.fusion.pipeline.mesh import LEFT_EYE, RIGHT_EYE
from facetmesh.fusion.pipeline.warp import similarity

if TYPE_CHECKING:
    from collections.abc import Callable

    from facetmesh.fusion.pipeline.frames import Pixels
    from facetmesh.fusion.pipeline.landmarks import Face

TRIES = 3
"""How often a face is fused at most."""
GOOD = 0.012
"""What is missed by so little, the median over the points in eye distances, is not tried again."""
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
    if mesh.gap(source.flat, *mesh.MOUTH_MIDDLES) < mesh.OPEN:  # a closed mouth is not to be stretched open
        inner = list(mesh.MOUTH)
        missed[inner] = missed[inner].mean(axis=0)
    length = np.linalg.norm(missed, axis=1, keepdims=True)
    missed *= np.minimum(1, LARGEST * target.unit / np.maximum(length, 1e-6))
    points = source.points.copy()
    points[:, :2] += missed @ similarity(target.flat, source.flat)[:, :2].T
    return replace(source, points=points)


@dataclass(frozen=True, slots=True)
class Fit:
    """The best of some tries."""

    pixels: Pixels
    """The fused image."""
    source: Face
    """The source's face with the points that it was made with."""
    error: float | None
    """What the fused face's points miss the target's by, the median in eye distances; None where it was not seen."""


def fitted(
    source: Face, target: Face, fuse: Callable[[Face], Pixels], look: Callable[[Pixels], Face | None]
) -> Fit:
    """Fuses until the points fit, and gives the try that fits best.

    Args:
        source: The face to take.
        target: The face that it is to fit.
        fuse: Makes the image with the source's points moved.
        look: Finds the fused face in an image; None where it cannot.
    """
    best: Fit | None = None
    for _ in range(TRIES):
        pixels = fuse(source)
        seen = look(pixels)
        if seen is None:
            return best or Fit(pixels, source, None)
        error = missed_by(seen, target)
        if best is None or best.error is None or error < best.error:
            best = Fit(pixels, source, error)
        if error < GOOD:
            break
        source = corrected(source, target, seen)
    assert best is not None  # noqa: S101 - there was a try
    return best


def missed_by(seen: Face, target: Face) -> float:
    """How far the points of a face are from where they should be: the median, in eye distances."""
    return float(np.median(np.linalg.norm(seen.flat - target.flat, axis=1))) / target.unit
