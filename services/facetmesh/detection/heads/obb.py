"""YOLO's head for rotated boxes: (1, 4 + classes + 1, boxes); the last number is the angle in radians.

Two overlap as much as Gaussians of their extents do: J. M. Llerena et al.,
Gaussian Bounding Boxes and Probabilistic Intersection-over-Union, 2021,
arXiv:2106.06072, equations 8 to 12.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from facetmesh.detection.heads.geometry import suppress
from facetmesh.detection.heads.yolo import YoloBase, columns, is_image, labels, size, task

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from facetmesh.detection.heads.geometry import Candidates, Overlap, Placement
    from facetmesh.detection.hints import Hints
    from facetmesh.runners.engines import Graph

    Floats = NDArray[np.float32]

_BOX = 4
_TINY = 1e-7


@dataclass(frozen=True, slots=True)
class YoloObb(YoloBase):
    """The head."""

    task: ClassVar[str] = "obb"

    @classmethod
    def recognise(cls, graph: Graph, hints: Hints) -> Self | None:
        """Returns the model's head, or None if it has another. Its shapes alone do not tell: its task must be said."""
        match list(graph.outputs.values()):
            case [(_, int(rows), _)] if task(graph, hints) == "obb" and rows > _BOX + 1 and is_image(graph):
                return cls(labels(graph, hints, rows - _BOX - 1), size(graph, hints))
        return None

    def candidates(self, outputs: Mapping[str, Floats], min_confidence: float) -> Candidates:
        """Reads the model's output.

        Args:
            outputs: One array, (1, 4 + classes + 1, boxes).
            min_confidence: What is below is left out, and what is not finite.
        """
        (output,) = outputs.values()
        found = columns(output[0], len(self.labels), min_confidence)
        centre, sides = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2, found.boxes[:, 2:] - found.boxes[:, :2]
        angle = found.extras[:, -1:]
        sine, cosine = np.abs(np.sin(angle)), np.abs(np.cos(angle))
        # Half of the upright box around the rotated one.
        half = np.concatenate(
            [sides[:, :1] * cosine + sides[:, 1:] * sine, sides[:, :1] * sine + sides[:, 1:] * cosine], axis=1
        ) / 2
        return replace(
            found,
            boxes=np.concatenate([centre - half, centre + half], axis=1),
            extras=np.concatenate([centre, sides, angle], axis=1),
        )

    def select(self, candidates: Candidates, overlap: Overlap, at_most: int) -> Candidates:
        """Returns the best without their overlaps."""
        return suppress(candidates, overlap, at_most, overlaps_with=_overlaps_with)

    def details(
        self, found: Candidates, outputs: Mapping[str, Floats], placement: Placement, image: tuple[int, int]
    ) -> list[dict[str, Any]]:
        """The rotated box of each, in pixels of the image: centre, width, height and angle."""
        del outputs, image
        scale = np.array([placement.scale_x, placement.scale_y], np.float32)
        origin = np.array([placement.left, placement.top], np.float32)
        centres = (found.extras[:, :2] - origin) / scale
        sides = found.extras[:, 2:4] / scale
        return [
            {"rotated_box": [*centre.tolist(), *side.tolist(), float(angle)]}
            for centre, side, angle in zip(centres, sides, found.extras[:, 4], strict=True)
        ]


def _overlaps_with(candidates: Candidates, index: int) -> Floats:
    """How much one rotated box overlaps with each: 1 minus the Hellinger distance of their Gaussians."""
    x, y, *_ = candidates.extras.T
    a, b, c = _covariance(candidates.extras)
    sum_a, sum_b, sum_c = a + a[index], b + b[index], c + c[index]
    determinant = sum_a * sum_b - sum_c**2
    dx, dy = x[index] - x, y[index] - y
    apart = (sum_a * dy**2 + sum_b * dx**2 - 2 * sum_c * dx * dy) / (determinant + _TINY) / 4
    own = np.clip(a * b - c**2, 0, None)
    shape = np.log(determinant / (4 * np.sqrt(own * own[index]) + _TINY) + _TINY) / 2
    distance = np.clip(apart + shape, _TINY, 100)
    result: Floats = 1 - np.sqrt(1 - np.exp(-distance) + _TINY)
    return result


def _covariance(boxes: Floats) -> tuple[Floats, Floats, Floats]:
    _, _, width, height, angle = boxes.T
    across, down = width**2 / 12, height**2 / 12
    cosine, sine = np.cos(angle), np.sin(angle)
    return (
        across * cosine**2 + down * sine**2, across * sine**2 + down * cosine**2, (across - down) * cosine * sine,
    )  # fmt: skip
