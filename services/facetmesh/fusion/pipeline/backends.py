"""What puts one face into another: backends behind one interface."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

from facetmesh.fusion.pipeline import checks, hair, landmarks
from facetmesh.fusion.pipeline.fuse import fuse
from facetmesh.fusion.pipeline.refine import fitted
from facetmesh.fusion.pipeline.rendering import PLAIN
from facetmesh.kit.errors import InvalidArgument
from facetmesh.runners.stopwatch import part

if TYPE_CHECKING:
    from facetmesh.fusion.pipeline.frames import Pixels
    from facetmesh.fusion.pipeline.landmarks import Box, Face, LandmarkModel
    from facetmesh.fusion.pipeline.mesh import Points
    from facetmesh.fusion.pipeline.rendering import Rendering

F = TypeVar("F")


@dataclass(frozen=True, slots=True)
class Sought:
    """Where detection saw a face."""

    box: Box
    eyes: Points | None
    """The right and the left eye's position, (2, 2), where detection gives them."""


class Backend(Protocol[F]):
    """A way of fusing; F is what it knows of a face."""

    def find(self, image: Pixels, sought: Sought, which: str) -> F:
        """The face, ready to be fused.

        Args:
            image: RGB, uint8, (height, width, 3).
            sought: Where it is.
            which: What to call the image in a refusal: source or target.

        Raises:
            InvalidArgument: A face that would come out badly, with the reason.
        """
        ...

    def fuse(self, source: Pixels, source_face: F, target: Pixels, target_face: F, rendering: Rendering) -> Pixels:
        """The target with the source's face."""
        ...


class MeshBackend:
    """Fuses by FaceMesh's points: no model of the backend's has a licence that forbids business.

    Args:
        model: FaceMesh.
    """

    def __init__(self, model: LandmarkModel) -> None:
        self._model = model

    def find(self, image: Pixels, sought: Sought, which: str) -> Face:
        """The face's points.

        Raises:
            InvalidArgument: What `landmarks.find` and `checks.check` refuse.
        """
        face = landmarks.find(self._model, image, sought.box, eyes=sought.eyes, which=which)
        checks.check(image, face, which)
        return face

    def fuse(
        self, source: Pixels, source_face: Face, target: Pixels, target_face: Face, rendering: Rendering
    ) -> Pixels:
        """The target with the source's face, tried until its points fit.

        FaceMesh judges whole faces, so the fit is found on one, whatever of it is asked for.
        """
        with part("mask"):
            cut = hair.cut(source, source_face)

        def attempt(face: Face) -> Pixels:
            return fuse(source, face, target, target_face, cut=cut)

        fit = fitted(source_face, target_face, attempt, partial(self._look, target_face.box))
        return fit.pixels if rendering == PLAIN else fuse(source, fit.source, target, target_face, rendering, cut)

    def _look(self, box: Box, image: Pixels) -> Face | None:
        try:
            return landmarks.find(self._model, image, box)
        except InvalidArgument:
            return None
