"""Classification heads: (1, classes), how likely each is to be what the middle of the image shows.

YOLO's gives probabilities. Others, such as torchvision's and timm's, give logits,
of which the softmax is taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from facetmesh.detection.heads.geometry import Candidates
from facetmesh.detection.heads.yolo import YoloBase, is_image, labels, size

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from facetmesh.detection.hints import Hints
    from facetmesh.runners.engines import Graph

_ROUNDING = 0.01
"""How far arithmetic of few bits may take a probability beyond 0 and 1."""


@dataclass(frozen=True, slots=True)
class YoloClassify(YoloBase):
    """The head."""

    task: ClassVar[str] = "classify"
    stride: ClassVar[int | None] = None

    @classmethod
    def recognise(cls, graph: Graph, hints: Hints) -> Self | None:
        """Returns the model's head, or None if it has another."""
        match list(graph.outputs.values()):
            case [(_, int(classes))] if is_image(graph):
                return cls(labels(graph, hints, classes), size(graph, hints))
        return None

    def candidates(self, outputs: Mapping[str, NDArray[np.float32]], min_confidence: float) -> Candidates:
        """Finds no objects."""
        del outputs, min_confidence
        none = np.empty((0, 4), np.float32)
        return Candidates(none, none[:, 0], np.empty(0, np.int64), np.empty((0, 0, 2), np.float32), none[:, :0])

    def classes(self, outputs: Mapping[str, NDArray[np.float32]], min_confidence: float) -> list[tuple[int, float]]:
        """Returns ids and probabilities of the classes that reach the confidence, most likely first.

        Args:
            outputs: One array, (1, classes).
            min_confidence: What is below is left out, and all where a value is not finite.
        """
        (output,) = outputs.values()
        likely = _probabilities(output[0].astype(np.float32))
        order = np.argsort(-likely, kind="stable")
        return [(int(index), float(likely[index])) for index in order if likely[index] >= min_confidence]


def _probabilities(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Values from 0 to 1 as they are, which need not sum to 1 where classes are independent; else their softmax."""
    if not np.isfinite(values).all():
        return np.full_like(values, np.nan)
    if values.min() < -_ROUNDING or values.max() > 1 + _ROUNDING:
        powers = np.exp(values - values.max())
        values = powers / powers.sum()
    return values.clip(0, 1)
