"""YOLOv8's detection head, which YOLO11 shares: one tensor (1, 4 + classes, boxes).

Each column is a box's centre, width and height in pixels of the input, and a
confidence for each class.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from facetmesh.detection.heads.geometry import Candidates, suppress

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from facetmesh.detection.hints import Hints
    from facetmesh.runners.engines import Graph

_DEFAULT_SIZE = 640
_MAX_SIZE = 4096
_MAX_LABEL = 100


@dataclass(frozen=True, slots=True)
class Yolo:
    """The head."""

    labels: tuple[str, ...]
    """The classes' names, by class id."""
    size: tuple[int, int]
    """Height and width of the model's input."""
    task: ClassVar[str] = "detect"
    mean: ClassVar[float] = 0.0
    scale: ClassVar[float] = 255.0
    # The grey around the images that ultralytics trains with.
    fill: ClassVar[int] = 114
    keypoints: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def recognise(cls, graph: Graph, hints: Hints) -> Self | None:
        """Returns the model's head, or None if it has another."""
        match list(graph.inputs.values()), list(graph.outputs.values()):
            case [(_, 3, height, width)], [(_, int(rows), _)] if rows > 4:  # noqa: PLR2004 - a box's numbers
                declared = _size(graph.metadata.get("imgsz", ""))
                size = (height or hints.height or declared[0], width or hints.width or declared[1])
                return cls(hints.labels or _labels(graph.metadata.get("names", ""), rows - 4), size)
        return None

    def candidates(self, outputs: Mapping[str, NDArray[np.float32]], min_confidence: float) -> Candidates:
        """Reads the model's output.

        Args:
            outputs: One array, (1, 4 + classes, boxes).
            min_confidence: What is below is left out, and what is not finite.
        """
        (output,) = outputs.values()
        scores = output[0, 4:]
        confidences = scores.max(axis=0)
        chosen = np.flatnonzero(confidences >= min_confidence)
        centre, half = output[0, :2, chosen], output[0, 2:4, chosen] / 2
        boxes = np.concatenate([centre - half, centre + half], axis=1)
        found = Candidates(
            boxes,
            confidences[chosen],
            scores[:, chosen].argmax(axis=0),
            np.empty((len(chosen), 0, 2), np.float32),
        )
        return found[np.isfinite(boxes).all(axis=1) & (found.confidences <= 1)]

    def select(self, candidates: Candidates, iou_threshold: float, at_most: int) -> Candidates:
        """Returns the best without their overlaps."""
        return suppress(candidates, iou_threshold, at_most)


def _size(text: str) -> tuple[int, int]:
    """Height and width from ultralytics' metadata, such as "[320, 320]"."""
    match _literal(text):
        case [int(height), int(width)] if 0 < height <= _MAX_SIZE and 0 < width <= _MAX_SIZE:
            return height, width
    return _DEFAULT_SIZE, _DEFAULT_SIZE


def _labels(text: str, count: int) -> tuple[str, ...]:
    """The names from ultralytics' metadata, such as "{0: 'person', 1: 'bus'}"; numbers where there are none."""
    names = _literal(text)
    if not isinstance(names, dict):
        names = {}
    return tuple(str(names.get(index, index))[:_MAX_LABEL] for index in range(count))


def _literal(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
