"""YOLO's detection heads, as ultralytics exports them; `recognise` tells them apart by their shapes.

v8 and 11, (1, 4 + classes, boxes): a column for each box, its centre, width and
height in pixels of the input, and a confidence for each class. v5, (1, boxes,
5 + classes): a row for each box, with how sure it is of an object before the
classes. 10 and 26, (1, boxes, 6): a row for each box, its corners, confidence and
class, without overlaps.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from facetmesh.detection.heads.geometry import Candidates, Overlap, suppress
from facetmesh.detection.hints import LARGEST_SIDE
from facetmesh.kit.errors import FailedPrecondition

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from facetmesh.detection.heads.geometry import Placement
    from facetmesh.detection.hints import Hints
    from facetmesh.runners.engines import Graph

_DEFAULT_SIZE = 640
_MAX_LABEL = 100
_BOX = 4
_END_TO_END = 6
_STRIDES = ((8, 16, 32), (4, 8, 16, 32), (8, 16, 32, 64))


@dataclass(frozen=True, slots=True)
class YoloBase:
    """What all of them share."""

    labels: tuple[str, ...]
    """The classes' names, by class id."""
    size: tuple[int, int]
    """Height and width of the model's input."""
    task: ClassVar[str] = "detect"
    mean: ClassVar[float] = 0.0
    scale: ClassVar[float] = 255.0
    # The grey around the images that ultralytics trains with.
    fill: ClassVar[int] = 114
    # The largest there is (P6); most have 32.
    stride: ClassVar[int | None] = 64

    @property
    def keypoints(self) -> tuple[str, ...]:
        """The names of the points that come with each box: none."""
        return ()

    def select(self, candidates: Candidates, overlap: Overlap, at_most: int) -> Candidates:
        """Returns the best without their overlaps."""
        return suppress(candidates, overlap, at_most)

    def details(
        self, found: Candidates, outputs: Mapping[str, NDArray[np.float32]], placement: Placement,
        image: tuple[int, int],
    ) -> list[dict[str, Any]]:
        """What else is said of each: nothing."""
        del outputs, placement, image
        return [{} for _ in found.confidences]


@dataclass(frozen=True, slots=True)
class Yolo(YoloBase):
    """The head of v8 and 11."""

    @classmethod
    def recognise(cls, graph: Graph, hints: Hints) -> Self | None:
        """Returns the model's head, or None if it has another."""
        match list(graph.outputs.values()):
            case [(_, int(rows), _)] if rows > _BOX and is_image(graph):
                return cls(labels(graph, hints, rows - _BOX), size(graph, hints))
        return None

    def candidates(self, outputs: Mapping[str, NDArray[np.float32]], min_confidence: float) -> Candidates:
        """Reads the model's output.

        Args:
            outputs: One array, (1, 4 + classes, boxes).
            min_confidence: What is below is left out, and what is not finite.
        """
        (output,) = outputs.values()
        return columns(output[0], len(self.labels), min_confidence)


@dataclass(frozen=True, slots=True)
class YoloRows(YoloBase):
    """The heads of v5, and of 10 and 26."""

    end_to_end: bool = False
    """Whether rows are boxes without overlaps."""

    @classmethod
    def recognise(cls, graph: Graph, hints: Hints) -> Self | None:
        """Returns the model's head, or None if it has another."""
        match list(graph.outputs.values()):
            case [(_, rows, int(width))] if (rows is None or rows > width) and width > _BOX + 1 and is_image(graph):
                named = len(hints.labels) or len(names(graph))
                if rows is not None and named == rows - _BOX != width - _BOX - 1:
                    return None  # v8's columns, of which there are few where there are many classes and a small input
                if width == _END_TO_END and (named > 1 or _is_end_to_end(graph, hints, rows)):
                    return cls(labels(graph, hints, _named(named)), size(graph, hints), end_to_end=True)
                return cls(labels(graph, hints, width - _BOX - 1), size(graph, hints))
        return None

    def candidates(self, outputs: Mapping[str, NDArray[np.float32]], min_confidence: float) -> Candidates:
        """Reads the model's output.

        Args:
            outputs: One array, (1, boxes, 5 + classes) or (1, boxes, 6).
            min_confidence: What is below is left out, and what is not finite.
        """
        (output,) = outputs.values()
        if not self.end_to_end:
            scores = output[0, :, 5:] * output[0, :, 4:5]
            return columns(np.concatenate([output[0, :, :4], scores], axis=1).T, len(self.labels), min_confidence)
        with np.errstate(invalid="ignore"):
            classes = np.nan_to_num(output[0, :, 5], nan=-1, posinf=-1, neginf=-1).astype(np.int64)
        known = (output[0, :, 4] >= min_confidence) & (classes >= 0) & (classes < len(self.labels))
        chosen = np.flatnonzero(known)
        return clean(
            Candidates(
                output[0, chosen, :4], output[0, chosen, 4], classes[chosen],
                np.empty((len(chosen), 0, 2), np.float32), np.empty((len(chosen), 0), np.float32),
            )
        )

    def select(self, candidates: Candidates, overlap: Overlap, at_most: int) -> Candidates:
        """Returns the best; without their overlaps, if the model has not seen to that."""
        return suppress(candidates, Overlap(1.0) if self.end_to_end else overlap, at_most)


def _is_end_to_end(graph: Graph, hints: Hints, rows: int | None) -> bool:
    """Whether rows of six numbers are boxes with their class, and not v5's for one class.

    v5 has as many rows for each cell of its grids, whose strides are 8, 16 and 32, and of some models 4 or 64 as well.
    """
    if "end2end" in graph.metadata:
        return graph.metadata["end2end"] == "True"
    if rows is None:
        return False
    height, width = size(graph, hints)
    grids = [sum((height // stride) * (width // stride) for stride in strides) for strides in _STRIDES]
    return not any(cells and rows % cells == 0 for cells in grids)


def _named(count: int) -> int:
    """How many classes there are where only names tell."""
    if not count:
        raise FailedPrecondition(
            "The model's boxes carry the numbers of their classes, and nothing says how many there are: give its "
            "labels with the upload, or export it with its metadata.",
            reason="MODEL_UNSUPPORTED",
        )
    return count


def columns(output: NDArray[np.float32], classes: int, min_confidence: float) -> Candidates:
    """Reads (4 + classes + more, boxes) numbers; what is more goes to the extras.

    Args:
        output: Of each box, a column: centre, width, height, a confidence for
            each class, and whatever else the head has.
        classes: How many there are.
        min_confidence: What is below is left out, and what is not finite.
    """
    scores = output[_BOX : _BOX + classes]
    confidences = scores.max(axis=0)
    chosen = np.flatnonzero(confidences >= min_confidence)
    centre, half = output[:2, chosen], output[2:4, chosen] / 2
    return clean(
        Candidates(
            np.concatenate([centre - half, centre + half]).T,
            confidences[chosen],
            scores[:, chosen].argmax(axis=0),
            np.empty((len(chosen), 0, 2), np.float32),
            output[_BOX + classes :, chosen].T,
        )
    )


def clean(found: Candidates) -> Candidates:
    """Returns those that are made of numbers, and sure in a way that there is."""
    finite = np.isfinite(found.boxes).all(axis=1) & np.isfinite(found.extras).all(axis=1)
    return found[finite & (found.confidences <= 1)]


def is_image(graph: Graph) -> bool:
    """Whether a model takes one image, planar."""
    match list(graph.inputs.values()):
        case [(_, 3, _, _)]:
            return True
    return False


def size(graph: Graph, hints: Hints) -> tuple[int, int]:
    """Height and width of a model's input: as its file fixes them, as is hinted, or as ultralytics' metadata says."""
    ((_, _, height, width),) = graph.inputs.values()
    declared = (_DEFAULT_SIZE, _DEFAULT_SIZE)
    match literal(graph.metadata.get("imgsz", "")):
        case [int(rows), int(across)] if 0 < rows <= LARGEST_SIDE and 0 < across <= LARGEST_SIDE:
            declared = rows, across
    return height or hints.height or declared[0], width or hints.width or declared[1]


def names(graph: Graph) -> dict[int, str]:
    """The classes' names in ultralytics' metadata: "{0: 'person', 1: 'bus'}", or of YOLOv5 "['person', 'bus']"."""
    found = literal(graph.metadata.get("names", ""))
    if isinstance(found, list):
        return dict(enumerate(found))
    return found if isinstance(found, dict) else {}


def labels(graph: Graph, hints: Hints, count: int) -> tuple[str, ...]:
    """The names of so many classes: as is hinted, as the metadata says, or numbers where there are none."""
    if len(hints.labels) == count:
        return hints.labels
    known = names(graph)
    return tuple(_label(known.get(index, ""))[:_MAX_LABEL] or str(index) for index in range(count))


def _label(value: object) -> str:
    """A name that can be sent; empty for what is none."""
    return value.encode(errors="replace").decode() if isinstance(value, str) else ""


def task(graph: Graph, hints: Hints) -> str:
    """What a model does, as is hinted or as its metadata says."""
    return hints.task or graph.metadata.get("task", "")


def literal(text: str) -> object:
    """The Python literal that a text is; None where it is none."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
