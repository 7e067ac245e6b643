"""YOLO's classification head: (1, classes), probabilities of what the middle of the image shows."""

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


@dataclass(frozen=True, slots=True)
class YoloClassify(YoloBase):
    """The head."""

    task: ClassVar[str] = "classify"

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
            min_confidence: What is below is left out, and what is no probability.
        """
        (output,) = outputs.values()
        likely = output[0]
        order = np.argsort(-likely, kind="stable")
        return [(int(index), float(likely[index])) for index in order if min_confidence <= likely[index] <= 1]
