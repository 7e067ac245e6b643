"""Refusals of faces that FaceMesh finds and no fusion should touch: covered ones, and drawn ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from facetmesh.fusion.pipeline import mask, mesh
from facetmesh.fusion.pipeline.frames import lab_of, resized, scaled, window_of
from facetmesh.kit.errors import InvalidArgument
from facetmesh.runners.stopwatch import part

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from facetmesh.fusion.pipeline.frames import Image, Pixels
    from facetmesh.fusion.pipeline.landmarks import Face
    from facetmesh.fusion.pipeline.mesh import Points

UNIT_PX = 64.0
"""At which eye distance colours are looked at, unless the face is smaller."""
MAX_COVERED = 0.2
"""How much of a face may be hidden by something of another colour."""
FOREIGN = 25.0
"""A colour so far from the skin's, in Lab units and whatever its lightness, is no shadow, beard or blush."""
PALE = 0.4
"""A nose and upper lip less colourful than this share of the skin between and under the eyes are cloth."""
ONE_SIDED = 0.2
"""A cheek less colourful than this share of the other is behind something: one in shadow keeps twice as much."""
COLOURFUL = 6.0
"""From which colourfulness on that can be said, in Lab units: a black and white photo has none."""
LIGHTER, DARKER = 10.0, 35.0
"""By how much they may be lighter or darker in a photo without colours, in Lab units."""
FLAT = 0.1
"""A face of which more than this share has no shading at all may be drawn."""
ALL_FLAT = 0.5
"""A face of which so much has none is drawn: of photos, also of badly compressed ones, it is below 0.12."""
FLAT_STEP = 0.15
"""Less than so much change of lightness from pixel to pixel is none."""
LINES = 7.0
"""And it is, when its strongest edges are so many times as strong as its median shading: skin stays below 5."""
DRAWN_UNIT_PX = 48.0
"""The eye distance at which that is looked at."""
DARK = 20.0
"""Skin of less lightness shows too little to tell a drawing from a photo."""
_FEWEST = 50
_BLUR = 0.03
_UPPER = (8, 168, 6, 193, 417, 23, 253)
"""Between the eyes and right under them: above any mask."""
_MUZZLE = (1, 2, 4, 98, 327, 164, 36, 266)
"""The nose's tip and underside, and what is beside and under it."""
_CHEEKS = (50, 101, 205, 118, 36), (280, 330, 425, 347, 266)
"""The right one's and the left one's middle, which a turned face shows too."""


def check(image: Pixels, face: Face, which: str) -> None:
    """Returns when the face is bare and photographed.

    Args:
        image: RGB, uint8, (height, width, 3).
        face: The face in it.
        which: What to call the image in a refusal: source or target.

    Raises:
        InvalidArgument: FACE_COVERED or FACE_DRAWN.
    """
    with part("check"):
        lab, points = _seen(image, face, min(1.0, UNIT_PX / face.unit))
        soft = _soft(lab, points)
        hidden = covered(lab, points) > MAX_COVERED or masked(soft, points) or one_sided(soft, points)
        flat = drawn(*_seen(image, face, DRAWN_UNIT_PX / face.unit))
    if hidden:
        raise InvalidArgument(
            f"The {which} face is covered, as by a mask, or its colours are burnt out.",
            reason="FACE_COVERED", metadata={"image": which},
        )
    if flat:
        raise InvalidArgument(
            f"The {which} face seems to be drawn or painted: only photos are fused.",
            reason="FACE_DRAWN", metadata={"image": which},
        )


def covered(lab: Image, points: Points) -> float:
    """How much of the face below the brows has another colour than the rest, 0 to 1: what cloth hides.

    Args:
        lab: The image in CIE Lab, float32, (rows, columns, 3).
        points: The face's points in it, (468, 2).
    """
    colours = lab[mask.plain_skin(points, (lab.shape[0], lab.shape[1]))][:, 1:]
    if len(colours) < _FEWEST:
        return 0.0
    return float((np.linalg.norm(colours - np.median(colours, axis=0), axis=1) > FOREIGN).mean())


def masked(soft: Image, points: Points) -> bool:
    """Whether nose and mouth are under cloth of whatever colour, black and white too.

    A nose has no beard, so it looks like the skin between and under the eyes.

    Args:
        soft: The image in CIE Lab without its grain, float32, (rows, columns, 3).
        points: The face's points in it, (468, 2).
    """
    upper, muzzle = (_middle(soft, points[list(part)]) for part in (_UPPER, _MUZZLE))
    colourful = float(np.linalg.norm(upper[1:]))
    if colourful > COLOURFUL:
        return float(np.linalg.norm(muzzle[1:])) < PALE * colourful
    return not -DARKER < float(muzzle[0] - upper[0]) < LIGHTER


def one_sided(soft: Image, points: Points) -> bool:
    """Whether one cheek is behind something black, grey or white: a door, a phone, a sheet of paper.

    Args:
        soft: The image in CIE Lab without its grain, float32, (rows, columns, 3).
        points: The face's points in it, (468, 2).
    """
    paler, other = sorted(float(np.linalg.norm(_middle(soft, points[list(cheek)])[1:])) for cheek in _CHEEKS)
    return other > COLOURFUL and paler < ONE_SIDED * other


def drawn(lab: Image, points: Points) -> bool:
    """Whether the face is flat between lines, as cartoons are: a photo's skin is shaded everywhere.

    Args:
        lab: The image in CIE Lab, float32, (rows, columns, 3).
        points: The face's points in it, (468, 2).
    """
    lightness = np.ascontiguousarray(lab[..., 0])
    across, down = (cv2.Sobel(lightness, cv2.CV_32F, *axes) / 8 for axes in ((1, 0), (0, 1)))
    skin = mask.plain_skin(points, (lab.shape[0], lab.shape[1]))
    if skin.sum() < _FEWEST or float(np.median(lightness[skin])) < DARK:
        return False
    steps = np.hypot(across, down)[skin]
    flat = float((steps < FLAT_STEP).mean())
    lines = float(np.quantile(steps, 0.95)) > LINES * float(np.median(steps))
    return flat > ALL_FLAT or (flat > FLAT and lines)


def _seen(image: Pixels, face: Face, scale: float) -> tuple[Image, Points]:
    x, y, columns, rows = window_of(face.flat, image)
    small = resized(image[y : y + rows, x : x + columns], scale)
    return lab_of(small), scaled(face.flat - (x, y), scale)


def _soft(lab: Image, points: Points) -> Image:
    """Without grain."""
    blur = max(mask.SHARPEST_PX, _BLUR * mesh.eye_distance(points))
    return cv2.GaussianBlur(lab, (0, 0), blur).astype(np.float32)


def _middle(lab: Image, points: Points) -> NDArray[np.float64]:
    """The median colour at points."""
    limits = lab.shape[1] - 1, lab.shape[0] - 1
    columns, rows = np.clip(np.rint(points).astype(int), 0, limits).T
    middle: NDArray[np.float64] = np.median(lab[rows, columns], axis=0).astype(np.float64)
    return middle
