"""YOLO's pose head: (1, 4 + classes + points x d, boxes), d being 2 or 3: x, y and how sure it is seen."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from facetmesh.detection.heads.yolo import YoloBase, columns, is_image, labels, literal, size, task

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from facetmesh.detection.heads.geometry import Candidates, Placement
    from facetmesh.detection.hints import Hints
    from facetmesh.runners.engines import Graph

_BOX = 4
_SEEN = 3
_MAX_POINTS = 1000
_DEFAULT_SHAPE = (17, 3)
_PERSON = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class YoloPose(YoloBase):
    """The head."""

    points: int = 0
    """How many points each has."""
    numbers: int = 0
    """How many numbers each point has: 2 or 3."""
    task: ClassVar[str] = "pose"

    @classmethod
    def recognise(cls, graph: Graph, hints: Hints) -> Self | None:
        """Returns the model's head, or None if it has another. Its shapes alone do not tell: its task must be said."""
        if task(graph, hints) != "pose":
            return None
        points, numbers = _DEFAULT_SHAPE
        match literal(graph.metadata.get("kpt_shape", "")):
            case [int(declared), 2 | 3 as each] if 0 < declared <= _MAX_POINTS:
                points, numbers = declared, each
        match list(graph.outputs.values()):
            case [(_, int(rows), _)] if rows > _BOX + points * numbers and is_image(graph):
                classes = rows - _BOX - points * numbers
                return cls(labels(graph, hints, classes), size(graph, hints), points, numbers)
        return None

    @property
    def keypoints(self) -> tuple[str, ...]:
        """The names of the points: COCO's for 17, else numbers."""
        return _PERSON if self.points == len(_PERSON) else tuple(str(index) for index in range(self.points))

    def candidates(self, outputs: Mapping[str, NDArray[np.float32]], min_confidence: float) -> Candidates:
        """Reads the model's output.

        Args:
            outputs: One array, (1, 4 + classes + points x d, boxes).
            min_confidence: What is below is left out, and what is not finite.
        """
        (output,) = outputs.values()
        found = columns(output[0], len(self.labels), min_confidence)
        points = found.extras.reshape(-1, self.points, self.numbers)
        seen = points[:, :, 2] if self.numbers == _SEEN else np.ones(points.shape[:2], np.float32)
        return replace(found, keypoints=points[:, :, :2], extras=np.clip(seen, 0, 1))

    def details(
        self, found: Candidates, outputs: Mapping[str, NDArray[np.float32]], placement: Placement,
        image: tuple[int, int],
    ) -> list[dict[str, Any]]:
        """How sure each point is seen."""
        del outputs, placement, image
        return [{"seen": seen.tolist()} for seen in found.extras]
