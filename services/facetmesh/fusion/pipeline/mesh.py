"""FaceMesh's numbering of a face's points, and the triangles between them.

"Left" and "right" are the subject's own. Closed outlines are listed in order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Points = NDArray[np.float32]
    Triangles = NDArray[np.intp]

POINTS = 468
"""How many points a face has."""

OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip
"""The face's outline: from the middle of the forehead by the left side to the chin, and back by the right."""
RIGHT_EYE = (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246)
LEFT_EYE = (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466)
RIGHT_BROW = (70, 63, 105, 66, 107, 55, 65, 52, 53, 46)
LEFT_BROW = (300, 293, 334, 296, 336, 285, 295, 282, 283, 276)
LIPS = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)
"""The lips' outer edge."""
MOUTH = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191)
"""The lips' inner edge: what lies within is teeth and tongue."""
MOUTH_MIDDLES = (13, 14)
"""The upper and the lower lip's, on the inner edge."""
NOSTRILS = (98, 97, 2, 326, 327, 294, 278, 344, 440, 275, 4, 45, 220, 115, 48, 64)
"""Around the nose's underside."""
NOSE = (168, 193, 245, 128, 114, 217, 209, 129, 98, 2, 327, 358, 429, 437, 343, 357, 465, 417)
"""Around the nose, from between the eyes to its underside."""
BROW_TOPS = (70, 63, 105, 66, 107, 336, 296, 334, 293, 300)
"""The brows' upper edge, from the right temple to the left."""

OPEN = 0.05
"""An eye or a mouth whose lids or lips are so far apart, in eye distances, is open."""

CHEEKS = (234, 454)
"""The face's sides, right and left."""


def eye_centres(points: Points) -> Points:
    """The middle of the right and of the left eye, shape (2, points.shape[1])."""
    return np.stack([points[list(RIGHT_EYE)].mean(axis=0), points[list(LEFT_EYE)].mean(axis=0)])


def eye_distance(points: Points) -> float:
    """How far the eyes are apart, in pixels: the scale of a face, also when it is turned."""
    right, left = eye_centres(points)
    return float(np.linalg.norm(left - right))


def gap(points: Points, upper: int, lower: int) -> float:
    """How far two of the points (n, 2) are apart, in eye distances: how open a mouth or an eye is."""
    return float(np.linalg.norm(points[upper] - points[lower])) / eye_distance(points)


def triangulate(points: Points) -> Triangles:
    """Delaunay's triangles over points (n, 2), as indices of shape (m, 3)."""
    low = points.min(axis=0) - 1
    size = np.ceil(points.max(axis=0) - low + 2)
    plane = cv2.Subdiv2D((0, 0, int(size[0]), int(size[1])))
    placed = np.ascontiguousarray(points - low, np.float32)
    plane.insert(placed.tolist())
    corners = np.asarray(plane.getTriangleList(), np.float32).reshape(-1, 2)
    # A corner is told by its very bits. Those of the plane's own frame are none of the points.
    known, wanted = (np.ascontiguousarray(each).view(np.int64)[:, 0] for each in (placed, corners))
    order = np.argsort(known)
    numbers = order[np.searchsorted(known, wanted, sorter=order).clip(max=len(order) - 1)].reshape(-1, 3)
    whole = (known[numbers] == wanted.reshape(-1, 3)).all(axis=1)
    triangles: Triangles = numbers[whole].astype(np.intp)
    return triangles
