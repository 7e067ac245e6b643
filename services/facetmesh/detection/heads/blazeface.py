"""BlazeFace's head, as MediaPipe's face detectors have it: (1, boxes, 16) and (1, boxes, 1).

Each row of the first is a box's centre, width and height and six points, in
pixels of the input and relative to an anchor; of the second a logit.

Source: V. Bazarevsky et al., BlazeFace: Sub-millisecond Neural Face Detection on
Mobile GPUs, 2019; anchors and decoding as in MediaPipe's face_detection module
(ssd_anchors_calculator.cc, tensors_to_detections_calculator.cc).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from facetmesh.detection.heads.geometry import Candidates, suppress

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from facetmesh.detection.heads.geometry import Overlap, Placement
    from facetmesh.detection.hints import Hints
    from facetmesh.runners.engines import Graph

_COORDINATES = 16
# Beyond it the logistic function says nothing new, and exp overflows in float32.
_MAX_LOGIT = 80.0
# Input's side and number of boxes → the feature maps' strides and anchors at each of their cells.
_GRIDS: Mapping[tuple[int, int], Sequence[tuple[int, int]]] = {
    (128, 896): ((8, 2), (16, 6)),  # short range
    (256, 896): ((16, 2), (32, 6)),  # back camera
    (192, 2304): ((4, 1),),  # full range
}


@dataclass(frozen=True, slots=True, eq=False)
class BlazeFace:
    """The head."""

    size: tuple[int, int]
    """Height and width of the model's input."""
    anchors: NDArray[np.float32]
    """(n, 2): the anchors' x and y in pixels of the input."""
    task: ClassVar[str] = "detect"
    labels: ClassVar[tuple[str, ...]] = ("face",)
    mean: ClassVar[float] = 127.5
    scale: ClassVar[float] = 127.5
    fill: ClassVar[int] = 0
    # Its anchors lie where they lie in the input it was trained with.
    stride: ClassVar[int | None] = None
    # The subject's right and left.
    keypoints: ClassVar[tuple[str, ...]] = (
        "right_eye", "left_eye", "nose_tip", "mouth_center", "right_ear", "left_ear",
    )  # fmt: skip

    @classmethod
    def recognise(cls, graph: Graph, _: Hints) -> Self | None:
        """Returns the model's head, or None if it has another."""
        widths = {shape[-1]: shape for shape in graph.outputs.values() if len(shape) == 3}  # noqa: PLR2004 - rank
        match list(graph.inputs.values()), widths:
            case [(_, int(height), width, 3)], {16: (_, int(boxes), _), 1: (_, others, _)} if others == boxes:
                grid = _GRIDS.get((height, boxes))
                if width == height and grid is not None:
                    return cls((height, height), anchors(height, grid))
        return None

    def candidates(self, outputs: Mapping[str, NDArray[np.float32]], min_confidence: float) -> Candidates:
        """Reads the model's outputs.

        Args:
            outputs: Two arrays, (1, n, 16) and (1, n, 1), in any order.
            min_confidence: What is below is left out, and what is not finite.
        """
        logits, raw = sorted((output[0] for output in outputs.values()), key=lambda output: output.shape[-1])
        confidences = 1 / (1 + np.exp(-np.clip(logits[:, 0], -_MAX_LOGIT, _MAX_LOGIT)))
        chosen = np.flatnonzero((confidences >= min_confidence) & np.isfinite(raw).all(axis=1))
        points = raw[chosen].reshape(-1, _COORDINATES // 2, 2)
        origin = self.anchors[chosen]
        centre, half = points[:, 0] + origin, points[:, 1] / 2
        return Candidates(
            np.concatenate([centre - half, centre + half], axis=1),
            confidences[chosen],
            np.zeros(len(chosen), np.int64),
            points[:, 2:] + origin[:, np.newaxis],
            np.empty((len(chosen), 0), np.float32),
        )

    def select(self, candidates: Candidates, overlap: Overlap, at_most: int) -> Candidates:
        """Returns the best, each merged with its overlaps."""
        return suppress(candidates, overlap, at_most, merge=True)

    def details(
        self, found: Candidates, outputs: Mapping[str, NDArray[np.float32]], placement: Placement,
        image: tuple[int, int],
    ) -> list[dict[str, Any]]:
        """What else is said of each: nothing."""
        del outputs, placement, image
        return [{} for _ in found.confidences]


def anchors(side: int, grid: Sequence[tuple[int, int]]) -> NDArray[np.float32]:
    """Returns (n, 2) anchors: the middle of each cell, as often as it has boxes, row by row.

    Args:
        side: Height and width of the input, in pixels.
        grid: Stride in pixels and boxes at each cell, for each feature map.
    """
    maps = []
    for stride, repeats in grid:
        middles = (np.arange(side // stride, dtype=np.float32) + 0.5) * stride
        y, x = np.meshgrid(middles, middles, indexing="ij")
        maps.append(np.repeat(np.stack([x.ravel(), y.ravel()], axis=1), repeats, axis=0))
    return np.concatenate(maps)
