"""Windows on images: cut out, resized, and in the colours that work is done in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from facetmesh.fusion.pipeline.mesh import Points

    Pixels = NDArray[np.uint8]
    Image = NDArray[np.float32]

MARGIN = 0.25
"""How far beyond the face's points the work looks, relative to their extent."""


def window_of(points: Points, image: Pixels) -> tuple[int, int, int, int]:
    """x, y, columns and rows of the part of the image that the work looks at."""
    low, high = points.min(axis=0), points.max(axis=0)
    margin = MARGIN * float((high - low).max())
    x, y = (max(0, int(value)) for value in low - margin)
    right, bottom = (
        min(side, int(value) + 1) for side, value in zip((image.shape[1], image.shape[0]), high + margin, strict=True)
    )
    return x, y, right - x, bottom - y


def scaled(points: Points, scale: float) -> Points:
    """Points in an image that was resized: pixel centres lie at halves."""
    return ((points + 0.5) * scale - 0.5).astype(np.float32)


def resized(image: NDArray[Any], scale: float) -> NDArray[Any]:
    """The image, smaller or larger."""
    if scale == 1:
        return image
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return cv2.resize(image, size, interpolation=how).astype(image.dtype)


def lab_of(image: Pixels) -> Image:
    """The image in CIE Lab, float32."""
    return cv2.cvtColor(unit_of(image), cv2.COLOR_RGB2LAB).astype(np.float32)


def unit_of(image: Pixels) -> Image:
    """The image in float32, 0 to 1."""
    return (image / np.float32(255)).astype(np.float32)
