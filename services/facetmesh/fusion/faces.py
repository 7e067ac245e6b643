"""Faces: what detection finds, and which of them is meant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from facetmesh.kit.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Sequence

    from facetmesh.fusion.operations import Box

Point = tuple[float, float]
"""x and y in pixels."""
LABEL_PREFIX = "face"
"""What a detector's labels of faces begin with, in any case: FACE_FEMALE, face."""


@dataclass(frozen=True, slots=True)
class Face:
    """A face that detection found."""

    box: Box
    right_eye: Point | None = None
    """The subject's own right; None where the detector gives no such point."""
    left_eye: Point | None = None

    @property
    def area(self) -> float:
        """Of its box, in square pixels."""
        x_min, y_min, x_max, y_max = self.box
        return (x_max - x_min) * (y_max - y_min)


@dataclass(frozen=True, slots=True)
class Seen:
    """Something in an image."""

    label: str
    confidence: float
    """0 to 1."""


@dataclass(frozen=True, slots=True)
class Found:
    """The faces of an image."""

    faces: Sequence[Face]
    model_version: str
    """The model version that found them."""
    seen: Sequence[Seen] = ()
    """All that it found."""


class FaceFinder(Protocol):
    """Finds faces."""

    async def find(self, tenant_id: str, model: str, image: bytes) -> Found:
        """Finds the faces of an image on behalf of a tenant, with a model of the tenant's.

        Raises:
            FacetmeshError: What detection refuses it with, or Unavailable.
        """
        ...


def choose(faces: Sequence[Face], index: int, which: str) -> Face:
    """The face of that index by size, the largest first.

    Args:
        faces: All faces of the image.
        index: 0 is the largest.
        which: What to call the image in a refusal: source or target.

    Raises:
        InvalidArgument: NO_FACE or FACE_INDEX_OUT_OF_RANGE.
    """
    metadata = {"image": which, "faces": str(len(faces))}
    if not faces:
        raise InvalidArgument(f"No face was found in the {which} image.", reason="NO_FACE", metadata=metadata)
    if index >= len(faces):
        raise InvalidArgument(
            f"The {which} image has {len(faces)} face(s): there is none of index {index}.",
            reason="FACE_INDEX_OUT_OF_RANGE", metadata=metadata,
        )
    return sorted(faces, key=lambda face: -face.area)[index]
