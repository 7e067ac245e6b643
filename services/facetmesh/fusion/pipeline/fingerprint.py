"""A picture's perceptual hash: what stays alike when it is saved anew, smaller or compressed.

The signs of the lowest frequencies of the brightness, against their median (Zauner, «Implementation and Benchmarking of
Perceptual Image Hash Functions», 2010, section 3.2.1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SIDE, _KEPT = 32, 8


def fingerprint(pixels: NDArray[np.uint8]) -> str:
    """64 bits in hex.

    Args:
        pixels: RGB, (rows, columns, 3).
    """
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    # The mean brightness, at (0, 0), says nothing of the picture.
    low = cv2.dct(small)[1 : _KEPT + 1, 1 : _KEPT + 1]
    return np.packbits(low > np.median(low)).tobytes().hex()
