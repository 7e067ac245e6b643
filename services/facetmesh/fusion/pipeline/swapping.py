"""Fusion by a model that draws the source's face into the target: InsightFace's INSwapper.

It draws 128 pixels square, in the target's pose, expression and light. Where that goes, with which mask and with what
over it, is decided as for every backend, by FaceMesh's points; and so are the refusals.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import cv2
import numpy as np

from facetmesh.fusion.faces import overlap
from facetmesh.fusion.pipeline import checks, landmarks, warp
from facetmesh.fusion.pipeline.fuse import Front, put
from facetmesh.kit.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from facetmesh.fusion.pipeline.backends import Sought
    from facetmesh.fusion.pipeline.frames import Image, Pixels
    from facetmesh.fusion.pipeline.fuse import View
    from facetmesh.fusion.pipeline.landmarks import Box, LandmarkModel
    from facetmesh.fusion.pipeline.rendering import Rendering

MIN_OVERLAP = 0.2
"""The intersection over union from which on two boxes, by two detectors, are of the same face."""
_EDGE_PX = 8
"""So much of a drawn face's edge fades."""


class Analysis(Protocol):
    """What finds and tells faces: `insightface.FaceAnalysis`. Images are RGB, uint8, (height, width, 3)."""

    def detect(self, image: Pixels) -> Sequence[Any]:
        """InsightFace's faces of an image: `bbox`, and `kps`, (5, 2), the right eye and the left one first."""
        ...

    def embedding(self, image: Pixels, face: Any) -> Image:
        """Who a face is: a vector of length 1, (512,)."""
        ...


class Swapper(Protocol):
    """What draws faces: `insightface.INSwapper`."""

    def draw(self, image: Pixels, face: Any, identity: Any) -> tuple[Pixels, Image]:
        """A face of an image as another's: RGB, square; and the map from the image to it, (2, 3).

        Args:
            image: RGB, uint8, (height, width, 3).
            face: Which face, as InsightFace has it.
            identity: Another, whose embedding is known.
        """
        ...


class Guesser(Protocol):
    """What guesses at faces: `insightface.GenderAge`."""

    def guess(self, image: Pixels, face: Any) -> tuple[str, int]:
        """A face's sex, female or male, and its age in years."""
        ...


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a face."""

    mesh: landmarks.Face
    """Its points, by FaceMesh."""
    face: Any
    """The same face as InsightFace has it."""


class InsightFaceBackend:
    """Fuses by INSwapper, and puts what it drew where FaceMesh's points are.

    Args:
        mesh: FaceMesh.
        analysis: Finds the faces that the swapper is told of.
        swapper: Draws.
    """

    def __init__(self, mesh: LandmarkModel, analysis: Analysis, swapper: Swapper) -> None:
        self._mesh = mesh
        self._analysis = analysis
        self._swapper = swapper
        self._detected: tuple[Pixels, Sequence[Any]] | None = None

    def find(self, image: Pixels, sought: Sought, which: str) -> Known:
        """The face by both models.

        Raises:
            InvalidArgument: What `landmarks.find` and `checks.check` refuse; FACE_NOT_CLEAR: InsightFace sees none.
        """
        if self._detected is None or self._detected[0] is not image:
            self._detected = image, self._analysis.detect(image)
        found = nearest(self._detected[1], sought.box)
        if found is None:
            raise InvalidArgument(
                f"What is in the {which} image is no face to InsightFace.", reason="FACE_NOT_CLEAR",
                metadata={"image": which},
            )
        eyes = np.asarray(found.kps[:2], np.float32) if sought.eyes is None else sought.eyes
        face = landmarks.find(self._mesh, image, sought.box, eyes=eyes, which=which)
        checks.check(image, face, which)
        return Known(face, found)

    def fuse(
        self, source: Pixels, source_face: Known, target: Pixels, target_face: Known, rendering: Rendering
    ) -> Pixels:
        """The target with the source's face."""
        self._analysis.embedding(source, source_face.face)
        drawn, matrix = self._swapper.draw(target, target_face.face, source_face.face)
        return put(target, target_face.mesh, partial(_placed, drawn, matrix), rendering)


def similarities(analysis: Analysis, reference: Pixels, image: Pixels, boxes: Sequence[Box]) -> list[float | None]:
    """How much faces look like the largest of a reference: the cosine of the embeddings, -1 to 1.

    Args:
        analysis: Finds and tells faces.
        reference: RGB, uint8, (height, width, 3).
        image: Where the others are.
        boxes: Where in it; None is told of those where InsightFace sees no face.

    Raises:
        InvalidArgument: NO_FACE: the reference shows none.
    """
    shown = analysis.detect(reference)
    if not shown:
        raise InvalidArgument(
            "No face was found in the reference image.", reason="NO_FACE", metadata={"image": "reference", "faces": "0"}
        )
    wanted = analysis.embedding(reference, max(shown, key=lambda face: _area(face.bbox)))
    seen = analysis.detect(image)
    found = [nearest(seen, box) for box in boxes]
    return [None if face is None else float(analysis.embedding(image, face) @ wanted) for face in found]


def guesses(analysis: Analysis, guesser: Guesser, image: Pixels, boxes: Sequence[Box]) -> list[list[Any] | None]:
    """Who faces may be: sex, female or male, and age in years.

    Args:
        analysis: Finds faces, as the guesser was trained on them.
        guesser: Guesses.
        image: Where they are.
        boxes: Where in it; None is told of those where InsightFace sees no face.
    """
    seen = analysis.detect(image)
    found = [nearest(seen, box) for box in boxes]
    return [None if face is None else [*guesser.guess(image, face)] for face in found]


def nearest(faces: Sequence[Any], box: Box) -> Any | None:
    """InsightFace's face that lies in a box, by another detector; None where there is none."""
    wanted = box.x_min, box.y_min, box.x_max, box.y_max
    best = max(faces, key=lambda face: overlap(face.bbox, wanted), default=None)
    return best if best is not None and overlap(best.bbox, wanted) >= MIN_OVERLAP else None


def _placed(drawn: Pixels, matrix: Image, view: View) -> Front:
    """What was drawn, as it lies in a view of the target."""
    turn, shift = matrix[:, :2].astype(np.float64), matrix[:, 2].astype(np.float64)
    rows, columns = view.pixels.shape[:2]
    y, x = np.mgrid[0:rows, 0:columns]
    places = (np.stack([x, y], axis=-1) + 0.5) / view.scale - 0.5 + view.origin
    field = (places @ turn.T + shift).astype(np.float32)
    side = drawn.shape[0]
    inner = np.zeros((side, side), np.float32)
    inner[_EDGE_PX:-_EDGE_PX, _EDGE_PX:-_EDGE_PX] = 1
    soft = cv2.GaussianBlur(inner, (0, 0), _EDGE_PX / 3)
    shown = cv2.remap(soft, field[..., 0], field[..., 1], cv2.INTER_LINEAR, borderValue=0).astype(np.float32)
    larger = view.scale / float(np.sqrt(abs(np.linalg.det(turn))))
    # It has the target's own expression: all that is open in the target is open in what was drawn.
    return Front(warp.resample(drawn, field, scale=larger), shown, np.ones_like(shown), view.points)


def _area(box: NDArray[Any]) -> float:
    return float(np.prod(np.maximum(box[2:4] - box[:2], 0)))
