"""Two images joined band by band: coarse colours over a wide seam, details over a narrow one (Burt, Adelson, 1983)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Image = NDArray[np.float32]
    Weights = NDArray[np.float32]


LEVELS = 3
"""Octaves that are blended apart: with more, brows that are covered leave a bright band on the forehead."""
_SMALLEST_PX = 16


def multiband(front: Image, back: Image, alpha: Weights) -> Image:
    """Front where alpha is 1, back where it is 0.

    Args:
        front: float32, (rows, columns, 3).
        back: The same.
        alpha: 0 to 1, (rows, columns).
    """
    difference = front - back
    bands: list[tuple[Image, Weights]] = []
    while len(bands) < LEVELS and min(alpha.shape) >= _SMALLEST_PX:
        smaller = cv2.pyrDown(difference)
        size = difference.shape[1], difference.shape[0]
        bands.append((difference - cv2.pyrUp(smaller, dstsize=size), alpha))
        difference, alpha = smaller.astype(np.float32), cv2.pyrDown(alpha).astype(np.float32)
    joined = difference * alpha[..., np.newaxis]
    for band, weights in reversed(bands):
        size = band.shape[1], band.shape[0]
        joined = cv2.pyrUp(joined, dstsize=size) + band * weights[..., np.newaxis]
    return (back + joined).astype(np.float32)
