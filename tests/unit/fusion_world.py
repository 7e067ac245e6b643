"""What the tests of fusion's pipeline share: the real landmark model, two real photos, and colour differences."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import cv2
import numpy as np

from facetmesh.fusion.pipeline import landmarks
from facetmesh.kit import catalog
from facetmesh.runners.engines import open_model
from facetmesh.runners.images import decode
from facetmesh.runners.settings import EngineSetting

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from facetmesh.runners.engines import Model

ASTRONAUT = landmarks.Box(173, 83, 274, 180)
"""The astronaut's face, as the detector boxes it."""
LOOKS_DOWN = landmarks.Box(59, 290, 177, 404)
SMILES = landmarks.Box(455, 306, 572, 412)
LAUGHS = landmarks.Box(739, 379, 848, 474)
PROFILE = landmarks.Box(899, 83, 1024, 198)
"""Of the six faces, these four."""


@cache
def facemesh() -> Model:
    """The landmark model."""
    return open_model(catalog.fetch("facemesh"), EngineSetting())


@cache
def photo(asset_id: str) -> NDArray[np.uint8]:
    """A photo's pixels."""
    pixels = decode(catalog.fetch(asset_id).read_bytes())
    pixels.flags.writeable = False
    return pixels


def astronaut() -> NDArray[np.uint8]:
    """One face, frontal, smiling."""
    return photo("photo-astronaut")


def group() -> NDArray[np.uint8]:
    """Six faces."""
    return photo("photo-six-faces")


@cache
def face(asset_id: str, box: landmarks.Box) -> landmarks.Face:
    """The points of a face in a photo."""
    return landmarks.find(facemesh(), photo(asset_id), box)


def astronauts_face() -> landmarks.Face:
    """The astronaut's points."""
    return face("photo-astronaut", ASTRONAUT)


def lab(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Pixels in CIE Lab."""
    return np.asarray(cv2.cvtColor(pixels.astype(np.float32) / 255, cv2.COLOR_RGB2LAB), np.float32)


def delta_e(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    """CIE 1976's colour difference of Lab images, at each pixel."""
    return np.asarray(np.linalg.norm(one - other, axis=-1), np.float32)


@dataclass(frozen=True)
class Turned:
    """A photo turned, scaled and moved, and where its points went."""

    pixels: NDArray[np.uint8]
    matrix: NDArray[np.float64]

    def moved(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Where points of the photo are now."""
        return np.asarray(points[:, :2] @ self.matrix[:, :2].T + self.matrix[:, 2], np.float32)


def turned(pixels: NDArray[np.uint8], degrees: float, scale: float) -> Turned:
    """The photo, turned about its middle."""
    height, width = pixels.shape[:2]
    size = round(1.5 * max(height, width) * scale)
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, scale)
    matrix = matrix + np.array([[0, 0, (size - width) / 2], [0, 0, (size - height) / 2]])
    flags = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return Turned(np.asarray(cv2.warpAffine(pixels, matrix, (size, size), flags=flags), np.uint8), matrix)


def box_around(points: NDArray[np.float32], margin: float = 0.0) -> landmarks.Box:
    """The box of points, wider on each side by a share of its size."""
    low, high = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
    more = (high - low) * margin
    return landmarks.Box(*(float(value) for value in (*(low - more), *(high + more))))
