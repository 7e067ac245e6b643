"""Faces: what detection finds, and which of them is meant."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

from facetmesh.kit.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

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

    label: str = ""
    """What the detector calls it, such as FACE_FEMALE."""

    @property
    def centre(self) -> Point:
        """The middle of its box."""
        x_min, y_min, x_max, y_max = self.box
        return (x_min + x_max) / 2, (y_min + y_max) / 2

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


class Pick(StrEnum):
    """How faces of an image are picked."""

    INDEX = "index"
    """The one of an index, in some order."""
    SOLE = "sole"
    """The only one."""
    NEAREST = "nearest"
    """The one nearest to a point."""
    ALL = "all"
    REFERENCE = "reference"
    """The one that looks most like the face of a reference image."""


class Order(StrEnum):
    """What comes first when faces are counted."""

    LARGEST = "largest"
    SMALLEST = "smallest"
    LEFTMOST = "leftmost"
    RIGHTMOST = "rightmost"
    TOPMOST = "topmost"
    LOWEST = "lowest"


class Sex(StrEnum):
    """What a model takes somebody for."""

    FEMALE = "female"
    MALE = "male"


@dataclass(frozen=True, slots=True)
class Guess:
    """Who a model takes a face for."""

    sex: Sex
    age: int
    """In years."""


_SAME = 0.45
"""Two faces whose boxes overlap more are one: as detection has it of boxes of one class."""
MIN_SIMILARITY = 0.4
"""How much a face must look like the reference's unless a request says it."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which faces of an image are meant."""

    pick: Pick = Pick.INDEX
    order: Order = Order.LARGEST
    """How INDEX counts."""
    near: Point = (0.0, 0.0)
    """The point of NEAREST."""
    label: str = ""
    """Only faces that the model gave this label, such as FACE_FEMALE; "" for all."""
    min_similarity: float = MIN_SIMILARITY
    """How much the face of REFERENCE must look like it, by the cosine of their embeddings."""
    sex: Sex | None = None
    """Only faces that a model takes for this; None for all."""
    min_age: int = 0
    """Only faces that a model takes for so old at least, in years."""
    max_age: int | None = None
    """And for so old at most; None for any age."""

    @property
    def guessed(self) -> bool:
        """Whether it takes a model's guesses to tell which faces are meant."""
        return self.sex is not None or self.min_age > 0 or self.max_age is not None

    def admits(self, guess: Guess | None) -> bool:
        """Whether a face that was taken for this may be meant; None where the model sees no face there."""
        return guess is not None and (
            self.sex in (None, guess.sex)
            and self.min_age <= guess.age
            and (self.max_age is None or guess.age <= self.max_age)
        )

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Selection:
        """From its fields as JSON has them."""
        x, y = fields["near"]
        # Records of before there was a choice of these have none.
        least, sex = fields.get("min_similarity", MIN_SIMILARITY), fields.get("sex")
        return cls(
            Pick(fields["pick"]), Order(fields["order"]), (x, y), fields["label"], least,
            None if sex is None else Sex(sex), fields.get("min_age", 0), fields.get("max_age"),
        )


PLAIN = Selection()
"""The face of an index, the largest first."""
MOST = 32
"""So many faces are replaced at once at most."""
_ORDERS: Mapping[Order, Callable[[Face], float]] = {
    Order.LARGEST: lambda face: -face.area,
    Order.SMALLEST: lambda face: face.area,
    Order.LEFTMOST: lambda face: face.centre[0],
    Order.RIGHTMOST: lambda face: -face.centre[0],
    Order.TOPMOST: lambda face: face.centre[1],
    Order.LOWEST: lambda face: -face.centre[1],
}


def distinct(faces: Sequence[Face]) -> list[Face]:
    """Each face once: a detector may take one for female and, a little less surely, for male.

    Args:
        faces: The surest first.
    """
    kept: list[Face] = []
    for face in faces:
        if all(overlap(face.box, other.box) <= _SAME for other in kept):
            kept.append(face)
    return kept


def overlap(one: Sequence[float], other: Sequence[float]) -> float:
    """The intersection over union of two boxes: x_min, y_min, x_max, y_max."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0) * max(height, 0)
    union = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)) - shared
    return shared / union if union > 0 else 0.0


def select(faces: Sequence[Face], index: int, which: str, selection: Selection = PLAIN) -> list[Face]:
    """The faces that are meant: at least one. Of REFERENCE, all that come into question.

    Args:
        faces: All faces of the image.
        index: Which of them in the selection's order, for INDEX; SOLE has none but 0.
        which: What to call the image in a refusal: source or target.
        selection: How they are picked.

    Raises:
        InvalidArgument: NO_FACE, FACE_INDEX_OUT_OF_RANGE, SEVERAL_FACES where there is to be one, or TOO_MANY_FACES.
    """
    faces = [face for face in faces if selection.label in ("", face.label)]
    metadata = {"image": which, "faces": str(len(faces))}

    def refusal(message: str, reason: str) -> InvalidArgument:
        return InvalidArgument(message, reason=reason, metadata=metadata)

    if not faces:
        labelled = f" with the label {selection.label}" if selection.label else ""
        raise refusal(f"No face{labelled} was found in the {which} image.", "NO_FACE")
    match selection.pick:
        case Pick.SOLE if len(faces) > 1:
            raise refusal(f"The {which} image has {len(faces)} faces, not one: say which is meant.", "SEVERAL_FACES")
        case (Pick.INDEX | Pick.SOLE) if index < len(faces):
            return [sorted(faces, key=_ORDERS[selection.order])[index]]
        case Pick.INDEX | Pick.SOLE:
            message = f"The {which} image has {len(faces)} face(s): there is none of index {index}."
            raise refusal(message, "FACE_INDEX_OUT_OF_RANGE")
        case Pick.NEAREST:
            return [min(faces, key=lambda face: math.dist(face.centre, selection.near))]
        case (Pick.ALL | Pick.REFERENCE) if len(faces) > MOST:
            message = f"The {which} image has {len(faces)} faces: {MOST} at most are looked at."
            raise refusal(message, "TOO_MANY_FACES")
    return sorted(faces, key=_ORDERS[selection.order])
