"""The 468 points of a face, by FaceMesh (Kartynnik et al., 2019), and refusals of faces that would come out badly."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import cv2
import numpy as np

from facetmesh.fusion.pipeline.mesh import CHEEKS, OVAL, POINTS, eye_centres, eye_distance
from facetmesh.kit.errors import InvalidArgument
from facetmesh.runners.stopwatch import part

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from facetmesh.fusion.pipeline.mesh import Points

INPUT_SIZE = 192
"""Side of the model's square input, in pixels."""
CROP_SCALE = 1.6
"""Side of the crop that the model sees, relative to the face's box."""
MIN_SCORE = 0.5
"""Below it, what the box holds is no face to FaceMesh."""
SURE_SCORE = 0.98
"""From it on, no other roll is tried."""
MIN_FACE_PX = 48
"""The smallest face whose features can be told apart, by the longer side of its box."""
MAX_YAW_DEG = 30.0
"""Faces turned aside further, as FaceMesh sees it, are refused: their hidden half would have to be made up.

FaceMesh flattens depth: a face that is turned by 45 degrees looks like 30 to it."""
MIN_BOX_INSIDE = 0.5
"""How much of a face's box must lie in the image."""
MIN_INSIDE = 0.9
"""How much of a face's outline must lie in the image."""


ROLLS_RAD = (0.0, -1.0, 1.0)
"""How a face of unknown roll may lie; tried until FaceMesh sees one. Upside down it sees faces that are not there."""
_MAX_LOOKS = 5
_STEADY = 0.01
_TIGHT_SCALE = 1.5


class LandmarkModel(Protocol):
    """FaceMesh in some engine."""

    def infer(self, array: NDArray[np.float32]) -> Mapping[str, NDArray[np.float32]]:
        """Takes (1, 192, 192, 3) RGB in 0 to 1; gives 1404 coordinates and one score before its sigmoid."""
        ...


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels, origin top left."""

    x_min: float
    y_min: float
    x_max: float
    y_max: float

    @property
    def side(self) -> float:
        """The longer side."""
        return max(self.x_max - self.x_min, self.y_max - self.y_min)

    @property
    def centre(self) -> tuple[float, float]:
        """The middle."""
        return (self.x_min + self.x_max) / 2, (self.y_min + self.y_max) / 2

    def share_within(self, width: int, height: int) -> float:
        """How much of it lies in an image of that size, 0 to 1."""
        across = min(self.x_max, width) - max(self.x_min, 0.0)
        down = min(self.y_max, height) - max(self.y_min, 0.0)
        area = (self.x_max - self.x_min) * (self.y_max - self.y_min)
        return max(0.0, across) * max(0.0, down) / area if area > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Face:
    """A face's points and how sure they are."""

    points: Points
    """(468, 3): x and y in pixels of the image, z in the same unit, smaller towards the viewer."""
    score: float
    """0 to 1: how sure FaceMesh is that there is a face."""

    @property
    def flat(self) -> Points:
        """Without z, (468, 2)."""
        return np.ascontiguousarray(self.points[:, :2])

    @property
    def box(self) -> Box:
        """The smallest box around the points."""
        low, high = self.flat.min(axis=0), self.flat.max(axis=0)
        return Box(float(low[0]), float(low[1]), float(high[0]), float(high[1]))

    @property
    def unit(self) -> float:
        """How far the eyes are apart, in pixels."""
        return eye_distance(self.flat)

    @property
    def roll_rad(self) -> float:
        """How far the line between the eyes is turned from the horizontal, clockwise positive."""
        right, left = eye_centres(self.flat)
        return math.atan2(left[1] - right[1], left[0] - right[0])

    @property
    def yaw_deg(self) -> float:
        """How far the face is turned aside: 0 looks into the camera, 90 is a profile."""
        right, left = self.points[list(CHEEKS)]
        across = left - right
        return math.degrees(math.atan2(across[2], math.hypot(across[0], across[1])))


def find(
    model: LandmarkModel, image: NDArray[np.uint8], box: Box, *, eyes: Points | None = None, which: str = "face"
) -> Face:
    """Finds the points of the face in a box.

    FaceMesh wants an upright face: each look tells the next how the face is rolled.

    Args:
        model: FaceMesh.
        image: RGB, uint8, (height, width, 3).
        box: Where detection saw the face.
        eyes: The right and the left eye's position, (2, 2), where detection gives them.
        which: What to call the image in a refusal: source or target.

    Raises:
        InvalidArgument: FACE_TOO_SMALL, FACE_NOT_CLEAR, FACE_PROFILE or FACE_AT_EDGE.
    """
    if not box.side >= MIN_FACE_PX:
        raise _refusal(which, "FACE_TOO_SMALL", f"is smaller than {MIN_FACE_PX} pixels")
    if not box.share_within(image.shape[1], image.shape[0]) >= MIN_BOX_INSIDE:
        raise _cut_off(which)
    rolls = ROLLS_RAD if eyes is None else (math.atan2(eyes[1, 1] - eyes[0, 1], eyes[1, 0] - eyes[0, 0]),)
    faces: list[Face] = []
    for roll in rolls:
        faces.append(_settle(model, image, box, roll))
        if faces[-1].score >= SURE_SCORE:
            break
    face = max(faces, key=lambda one: one.score)
    _check(face, image, which)
    return face


def _settle(model: LandmarkModel, image: NDArray[np.uint8], box: Box, roll: float) -> Face:
    """Looks again, upright and centred on the points themselves, until they stay where they are."""
    face = _look(model, image, box.centre, box.side * CROP_SCALE, roll)
    for _ in range(_MAX_LOOKS):
        if face.score < MIN_SCORE / 2:
            break
        low, high = face.flat.min(axis=0), face.flat.max(axis=0)
        x, y = (low + high) / 2
        before = face
        face = _look(model, image, (float(x), float(y)), float((high - low).max()) * _TIGHT_SCALE, face.roll_rad)
        if np.median(np.linalg.norm(face.flat - before.flat, axis=1)) < _STEADY * face.unit:
            break
    return face


def _look(
    model: LandmarkModel, image: NDArray[np.uint8], centre: tuple[float, float], side: float, roll: float
) -> Face:
    """Shows FaceMesh a square of the image that is turned by roll."""
    with part("align"):
        # Shrunk first, because warpAffine takes single pixels and would alias.
        shrink = min(1.0, 2 * INPUT_SIZE / side)
        view, origin = _surroundings(image, centre, side, shrink)
        # Pixel centres lie at halves.
        x, y = ((value - start + 0.5) * shrink - 0.5 for value, start in zip(centre, origin, strict=True))
        turn = cv2.getRotationMatrix2D((x, y), math.degrees(roll), INPUT_SIZE / (side * shrink))
        turn = turn + np.array([[0, 0, INPUT_SIZE / 2 - x], [0, 0, INPUT_SIZE / 2 - y]])
        crop = cv2.warpAffine(view, turn, (INPUT_SIZE, INPUT_SIZE), borderMode=cv2.BORDER_REPLICATE)
    outputs = model.infer((crop / np.float32(255)).astype(np.float32)[np.newaxis])
    arrays = {array.size: array.reshape(-1) for array in outputs.values()}
    points = arrays[POINTS * 3].reshape(POINTS, 3).astype(np.float32)
    back = cv2.invertAffineTransform(turn)
    flat = (points[:, :2] @ back[:, :2].T + back[:, 2] + 0.5) / shrink - 0.5 + origin
    depth = points[:, 2:] * (side / INPUT_SIZE)
    return Face(np.hstack([flat, depth]).astype(np.float32), 1 / (1 + math.exp(-float(arrays[1][0]))))


def _surroundings(
    image: NDArray[np.uint8], centre: tuple[float, float], side: float, shrink: float
) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """The part of the image that a turned square may show, made smaller, and where it begins."""
    height, width = image.shape[:2]
    reach = side * 0.75  # half of a square's diagonal, and a little
    x, y = (min(max(0, int(value - reach)), limit - 1) for value, limit in zip(centre, (width, height), strict=True))
    right, bottom = (max(1, int(value + reach)) for value in centre)
    part = image[y : max(y + 1, bottom), x : max(x + 1, right)]
    if shrink < 1:
        part = cv2.resize(part, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA).astype(np.uint8)
    return part, (x, y)


def _check(face: Face, image: NDArray[np.uint8], which: str) -> None:
    if not np.isfinite(face.points).all() or face.score < MIN_SCORE:
        raise _refusal(which, "FACE_NOT_CLEAR", "cannot be made out clearly enough")
    height, width = image.shape[:2]
    outline = face.flat[list(OVAL)]
    inside = ((outline >= 0) & (outline <= (width - 1, height - 1))).all(axis=1).mean()
    if inside < MIN_INSIDE:  # first: to the model, half a face is one that is turned aside
        raise _cut_off(which)
    if abs(face.yaw_deg) > MAX_YAW_DEG:
        raise _refusal(which, "FACE_PROFILE", "is turned too far aside: it must look roughly into the camera")


def _cut_off(which: str) -> InvalidArgument:
    return _refusal(which, "FACE_AT_EDGE", "is cut off by the edge of the image")


def _refusal(which: str, reason: str, problem: str) -> InvalidArgument:
    return InvalidArgument(f"The {which} face {problem}.", reason=reason, metadata={"image": which})
