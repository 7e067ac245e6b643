"""The visible label: words in a corner that say what the picture is, for who has no reader of manifests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_HEIGHT = 0.03
"""Of the letters, as a part of the picture's shorter side."""
_WIDTH = 0.9
"""At most so much of the picture's width is taken."""
_SHADE = 0.45
"""How bright the picture is behind the letters."""


def labelled(image: NDArray[np.uint8], text: str) -> NDArray[np.uint8]:
    """The image with white words on a darkened band at its lower left.

    Args:
        image: (height, width, 3).
        text: Printable ASCII.
    """
    height, width = image.shape[:2]
    scale = cv2.getFontScaleFromHeight(_FONT, max(8, round(_HEIGHT * min(height, width))))
    (wide, high), below = cv2.getTextSize(text, _FONT, scale, 1)
    scale *= min(1.0, _WIDTH * width / wide)
    (wide, high), below = cv2.getTextSize(text, _FONT, scale, 1)
    pad = max(1, high // 2)
    out = image.copy()
    band = out[max(0, height - high - below - 2 * pad) :, : wide + 2 * pad]
    band[:] = (band * _SHADE).astype(np.uint8)
    cv2.putText(out, text, (pad, height - below - pad), _FONT, scale, (255, 255, 255), max(1, high // 10), cv2.LINE_AA)
    return out
