"""What of a source's face is not behind hair.

Hair may have the skin's colour, so that no pixel alone tells which it is. But it goes on beyond the face's outline:
as by GrabCut (Rother et al., 2004) the face is cut out of what is beside it, from above the brows down to the mouth.
Beyond that there are forehead and neck, which are skin, too; and beards grow there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from facetmesh.fusion.pipeline import mask, mesh
from facetmesh.fusion.pipeline.frames import window_of
from facetmesh.fusion.pipeline.warp import resample

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from facetmesh.fusion.pipeline.frames import Pixels
    from facetmesh.fusion.pipeline.landmarks import Face
    from facetmesh.fusion.pipeline.mask import Weights
    from facetmesh.fusion.pipeline.mesh import Points
    from facetmesh.fusion.pipeline.warp import Field

    Matrix = NDArray[np.float64]

UNIT_PX = 24.0
"""The eye distance at which it is looked for: hair before a cheek is no fine thing."""
WIDTH, ABOVE, BELOW = 3.3, 0.75, 1.1
"""What is looked at, in eye distances: how wide, and how far above and below the eyes."""
CORE = 0.62
"""So much of the outline, around the nose, is face."""
FEATURES = 0.07
"""As are eyes, brows and nose, and so much around them, in eye distances: a brow is no hair that goes on."""
THIN = 0.04
"""What is no wider than twice this, in eye distances, is the outline's own error, and left."""
EDGE = 0.04
"""How far hair is taken to reach beyond the cut, in eye distances."""
FEATHER = 0.06
"""Over what width the cut's edge fades, in eye distances."""
FADE = 0.2
"""Over what height nothing is cut any more, in eye distances."""
_ROUNDS = 3
_SEED = 1


@dataclass(frozen=True, slots=True)
class Cut:
    """A face, cut out of what is before it and goes on beside it."""

    seen: Weights
    """1 where the face is seen, 0 where it is not, in a frame in which it stands upright, (rows, columns)."""
    turn: Matrix
    """From the image to that frame, (2, 2), and then"""
    shift: Matrix
    """so far, (2,)."""

    def through(self, field: Field) -> Weights:
        """How much of the face is seen at each pixel, 0 to 1.

        Args:
            field: Where in the image each pixel comes from, (rows, columns, 2).
        """
        x, y = np.moveaxis((field @ self.turn.T + self.shift).astype(np.float32), -1, 0)
        return cv2.remap(self.seen, x, y, cv2.INTER_LINEAR, borderValue=1).astype(np.float32)


def cut(image: Pixels, face: Face) -> Cut:
    """Cuts a face out of an image: RGB, uint8, (height, width, 3)."""
    turn, shift = _upright(face)
    rows, columns = round((ABOVE + BELOW) * UNIT_PX), round(WIDTH * UNIT_PX)
    frame = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), axis=-1)
    places = (frame - shift) @ np.linalg.inv(turn).T
    left, top, width, height = window_of(places.reshape(-1, 2).astype(np.float32), image)
    near = (places - (left, top)).astype(np.float32)
    view = resample(image[top : top + height, left : left + width], near, scale=UNIT_PX / face.unit)
    return Cut(_seen(view, (face.flat @ turn.T + shift).astype(np.float32)), turn, shift)


def _upright(face: Face) -> tuple[Matrix, Matrix]:
    """The turn and the shift that bring the image's pixels to the frame in which is looked."""
    scale, cos, sin = UNIT_PX / face.unit, np.cos(face.roll_rad), np.sin(face.roll_rad)
    turn = np.array([[cos, sin], [-sin, cos]]) * scale
    eyes = mesh.eye_centres(face.flat).mean(axis=0) @ turn.T
    sides = (face.flat[list(mesh.OVAL)] @ turn.T)[:, 0]
    middle = (sides.min() + sides.max()) / 2, eyes[1]
    shift = np.array([WIDTH / 2, ABOVE]) * UNIT_PX - middle
    return turn, shift


def _seen(view: Pixels, points: Points) -> Weights:
    shape = view.shape[0], view.shape[1]
    outline, nose = points[list(mesh.OVAL)], points[list(mesh.NOSE)].mean(axis=0)
    beside = mask.filled([outline], shape) < 0.5  # noqa: PLR2004 - half
    features = mask.features(points, shape, FEATURES)
    core = np.maximum(features, mask.filled([nose + (outline - nose) * np.float32(CORE)], shape)) > 0.5  # noqa: PLR2004
    if not (beside.any() and core.any()):
        return np.ones(shape, np.float32)
    labels = np.full(shape, cv2.GC_PR_FGD, np.uint8)
    labels[beside] = cv2.GC_BGD
    labels[core] = cv2.GC_FGD
    cv2.setRNGSeed(_SEED)  # it begins with k-means: the same picture is cut in the same way each time
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(view, labels, (0, 0, 0, 0), *models, _ROUNDS, cv2.GC_INIT_WITH_MASK)
    away = np.isin(labels, (cv2.GC_BGD, cv2.GC_PR_BGD))
    _, parts = cv2.connectedComponents(away.astype(np.uint8))
    before = away & ~beside & np.isin(parts, np.unique(parts[beside]))
    broad = mask.grown(mask.grown(before.astype(np.float32), -THIN * UNIT_PX), (THIN + EDGE) * UNIT_PX)
    seen = 1 - cv2.GaussianBlur(broad, (0, 0), FEATHER * UNIT_PX)
    seen = np.maximum(seen, cv2.GaussianBlur(features, (0, 0), FEATHER / 2 * UNIT_PX))
    edge = np.arange(shape[0]) / (FADE * UNIT_PX)
    strength = np.clip(np.minimum(edge, edge[::-1]), 0, 1)
    weights: Weights = (1 - (1 - seen) * strength[:, np.newaxis]).astype(np.float32)
    return weights
