"""YOLO's segmentation head: (1, 4 + classes + m, boxes), and m prototypes of masks, (1, m, h, w).

A box's mask is the sum of the prototypes, weighted by its m coefficients, through
the logistic function, within the box. Source: D. Bolya et al., YOLACT, ICCV 2019,
section 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import cv2
import numpy as np

from facetmesh.detection.heads import masks
from facetmesh.detection.heads.yolo import YoloBase, columns, is_image, labels, size

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from facetmesh.detection.heads.geometry import Candidates, Placement
    from facetmesh.detection.hints import Hints
    from facetmesh.runners.engines import Graph

_BOX = 4
_EXTREME = 1e6


@dataclass(frozen=True, slots=True)
class YoloSegment(YoloBase):
    """The head."""

    task: ClassVar[str] = "segment"

    @classmethod
    def recognise(cls, graph: Graph, hints: Hints) -> Self | None:
        """Returns the model's head, or None if it has another."""
        match sorted(graph.outputs.values(), key=len):
            case [(_, int(rows), _), (_, int(coefficients), _, _)] if rows > _BOX + coefficients and is_image(graph):
                return cls(labels(graph, hints, rows - _BOX - coefficients), size(graph, hints))
        return None

    def candidates(self, outputs: Mapping[str, NDArray[np.float32]], min_confidence: float) -> Candidates:
        """Reads the model's outputs.

        Args:
            outputs: Two arrays, (1, 4 + classes + m, boxes) and (1, m, h, w), in any order.
            min_confidence: What is below is left out, and what is not finite.
        """
        boxes = min(outputs.values(), key=lambda output: output.ndim)
        return columns(boxes[0], len(self.labels), min_confidence)

    def details(
        self, found: Candidates, outputs: Mapping[str, NDArray[np.float32]], placement: Placement,
        image: tuple[int, int],
    ) -> list[dict[str, Any]]:
        """The mask of each, in pixels of the image."""
        prototypes = max(outputs.values(), key=lambda output: output.ndim)[0]
        prototypes = np.nan_to_num(prototypes, posinf=_EXTREME, neginf=-_EXTREME)
        return [
            {"mask": self._mask(box, np.tensordot(weights, prototypes, 1), placement, image)}
            for box, weights in zip(found.boxes, found.extras, strict=True)
        ]

    def _mask(
        self, box: NDArray[np.float32], logits: NDArray[np.float32], placement: Placement, image: tuple[int, int]
    ) -> str:
        rows, columns_ = image
        corners = placement.to_image(box.reshape(2, 2), columns_, rows)
        left, top = np.floor(corners[0]).astype(int)
        right, bottom = np.ceil(corners[1]).astype(int)
        if right <= left or bottom <= top:
            return masks.encode([rows * columns_])
        # From the middle of each pixel of the image to where it lies among the prototypes' pixels.
        down, across = logits.shape[0] / placement.size[0], logits.shape[1] / placement.size[1]
        to_map = np.array(
            [
                [placement.scale_x * across, 0, ((left + 0.5) * placement.scale_x + placement.left) * across - 0.5],
                [0, placement.scale_y * down, ((top + 0.5) * placement.scale_y + placement.top) * down - 0.5],
            ],
            np.float32,
        )
        inside = cv2.warpAffine(
            logits.astype(np.float32), to_map, (int(right - left), int(bottom - top)),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE,
        )
        # The logistic function is above one half where its argument is above 0.
        return masks.encode(masks.runs(inside > 0, int(left), int(top), image))
