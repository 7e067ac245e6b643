"""Masks as COCO writes them: run lengths, column by column, in a text.

Source: COCO's maskApi.c (rleToString) and the format's description at
https://cocodataset.org/#format-results.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BITS = 5
_LOW = 0x1F
_SIGN = 0x10
_MORE = 0x20
_ZERO = 48
_DELTAS_FROM = 3


def runs(mask: NDArray[np.bool_], left: int, top: int, size: tuple[int, int]) -> list[int]:
    """Returns the lengths of runs of an image's pixels, column by column, outside first.

    Args:
        mask: (h, w), a part of the image; outside of it all is outside.
        left: The part's first column.
        top: The part's first row.
        size: The image's rows and columns.
    """
    rows, columns = size
    padded = np.zeros((mask.shape[1], mask.shape[0] + 2), np.int8)
    padded[:, 1:-1] = mask.T
    changes = np.diff(padded, axis=1)
    origin = (np.arange(mask.shape[1]) + left) * rows + top
    starts = origin[np.nonzero(changes == 1)[0]] + np.nonzero(changes == 1)[1]
    ends = origin[np.nonzero(changes == -1)[0]] + np.nonzero(changes == -1)[1]
    borders = np.stack([starts, ends], axis=1).ravel()
    # A run that reaches the bottom goes on at the next column's top.
    joined = np.flatnonzero(borders[1:-1:2] == borders[2::2]) * 2 + 1
    borders = np.delete(borders, np.concatenate([joined, joined + 1]))
    lengths: list[int] = np.diff(np.concatenate([[0], borders, [rows * columns]])).tolist()
    return lengths[:-1] if len(lengths) > 1 and lengths[-1] == 0 else lengths


def encode(lengths: list[int]) -> str:
    """Returns run lengths as COCO's compressed text."""
    text = []
    for index, length in enumerate(lengths):
        number = length - lengths[index - 2] if index >= _DELTAS_FROM else length
        more = True
        while more:
            low = number & _LOW
            number >>= _BITS
            more = number != -1 if low & _SIGN else number != 0
            text.append(chr((low | _MORE if more else low) + _ZERO))
    return "".join(text)
