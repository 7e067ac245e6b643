"""How a model's tensors become boxes, for each kind of detector; runs in a runner's child.

`of` finds the head from the model's shapes, so that nobody has to say what kind
of model they bring.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from facetmesh.detection.heads.blazeface import BlazeFace
from facetmesh.detection.heads.classify import YoloClassify
from facetmesh.detection.heads.obb import YoloObb
from facetmesh.detection.heads.pose import YoloPose
from facetmesh.detection.heads.segment import YoloSegment
from facetmesh.detection.heads.yolo import Yolo, YoloRows, task
from facetmesh.detection.hints import LARGEST_SIDE, NONE
from facetmesh.kit.errors import FailedPrecondition

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from facetmesh.detection.heads.geometry import Candidates, Overlap, Placement
    from facetmesh.detection.hints import Hints
    from facetmesh.runners.engines import Graph


class Head(Protocol):
    """What is known of a kind of detector."""

    @property
    def task(self) -> str:
        """What it does: detect, segment, pose, obb or classify."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes' names, by class id."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the model's input, in pixels."""

    @property
    def mean(self) -> float:
        """The model sees (value - mean) / scale."""

    @property
    def scale(self) -> float:
        """The model sees (value - mean) / scale."""

    @property
    def fill(self) -> int:
        """Value of the pixels around an image that does not fill the input."""

    @property
    def keypoints(self) -> tuple[str, ...]:
        """The names of the points that come with each box."""

    @property
    def stride(self) -> int | None:
        """Its input may have other sides too, where the file leaves them open: multiples of this. None: it may not."""

    def candidates(self, outputs: Mapping[str, NDArray[np.float32]], min_confidence: float) -> Candidates:
        """Reads the model's outputs: what reaches the confidence, before overlaps are removed."""

    def select(self, candidates: Candidates, overlap: Overlap, at_most: int) -> Candidates:
        """Returns the best, most confident first, without those that overlap a better one."""

    def details(
        self, found: Candidates, outputs: Mapping[str, NDArray[np.float32]], placement: Placement,
        image: tuple[int, int],
    ) -> list[dict[str, Any]]:
        """Says what else there is of each: `mask`, `rotated_box`, or `seen`, how sure each point is.

        Args:
            found: The objects.
            outputs: The model's.
            placement: Where the image lies in the model's input.
            image: Its rows and columns.
        """


# Who needs more than shapes to be told is asked first, and who takes most of them last.
_RECOGNISE: tuple[Callable[[Graph, Hints], Head | None], ...] = (
    YoloSegment.recognise, YoloPose.recognise, YoloObb.recognise, YoloRows.recognise, Yolo.recognise,
    YoloClassify.recognise, BlazeFace.recognise,
)  # fmt: skip
_OVERLAPPING = frozenset({"segment", "pose", "obb"})
"""The tasks of which no end-to-end export is known here."""


def of(graph: Graph, hints: Hints = NONE) -> Head:
    """Finds a model's head.

    Args:
        graph: The model.
        hints: What its file does not say.

    Raises:
        FailedPrecondition: MODEL_UNSUPPORTED: its shapes are those of no head that is known here, or its input is
            larger than 4,096 pixels a side.
    """
    if graph.metadata.get("end2end") == "True" and task(graph, hints) in _OVERLAPPING:
        raise FailedPrecondition(
            f"It is an end-to-end export for the task {task(graph, hints)}, of which only the other kind is read here: "
            "export it with end2end=False.",
            reason="MODEL_UNSUPPORTED",
        )
    for recognise in _RECOGNISE:
        head = recognise(graph, hints)
        if head is not None:
            return _of_bearable_size(head)
    raise FailedPrecondition(
        f"The model is none that is known here: its inputs are {_text(graph.inputs)} and its outputs "
        f"{_text(graph.outputs)}; expected is one image input (1, 3, height, width) and what ultralytics exports: "
        "(1, 4 + classes, boxes), (1, boxes, 5 + classes), (1, boxes, 6), (1, 4 + classes + m, boxes) with "
        "(1, m, h, w), or (1, classes); or BlazeFace's (1, boxes, 16) and (1, boxes, 1).",
        reason="MODEL_UNSUPPORTED",
    )


def _of_bearable_size(head: Head) -> Head:
    height, width = head.size
    if max(height, width) > LARGEST_SIDE:
        raise FailedPrecondition(
            f"The model's input has {height} x {width} pixels; at most {LARGEST_SIDE} x {LARGEST_SIDE} are taken.",
            reason="MODEL_UNSUPPORTED",
        )
    return head


def _text(shapes: Mapping[str, tuple[int | None, ...]]) -> str:
    return ", ".join(
        "(" + ", ".join("?" if size is None else str(size) for size in shape) + ")" for shape in shapes.values()
    )
