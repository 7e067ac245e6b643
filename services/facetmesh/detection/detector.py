"""Detection: from a tenant's model and an image to the objects in it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from facetmesh.kit.errors import Internal, InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from facetmesh.detection.versions import Version
    from facetmesh.runners.tasks import Runners

_TIMEOUT_S = 30.0
_LABELS_SHOWN = 20
_FAR = 1e9
"""No pixel is so far from an image, and no turn so wide."""


@dataclass(frozen=True, slots=True)
class Options:
    """What is looked for."""

    min_confidence: float = 0.25
    """Less sure objects are left out."""
    iou_threshold: float = 0.45
    """Boxes of a class that overlap more than this are one object."""
    labels: tuple[str, ...] = ()
    """Only these; all when empty."""
    max_detections: int = 100
    """At most so many, the best first."""
    class_agnostic: bool = False
    """Whether boxes that overlap are one object whatever their classes."""


@dataclass(frozen=True)
class Image:
    """What is looked at: a file, or pixels."""

    data: bytes
    """A JPEG, PNG or WebP file; or red, green and blue of each pixel, a byte each, row by row."""
    height: int = 0
    """Rows of the pixels; 0 for a file."""
    width: int = 0
    """Columns of the pixels; 0 for a file."""

    def __post_init__(self) -> None:
        """Refuses pixels that are not as many as they should be."""
        expected = 3 * self.height * self.width
        if self.height and len(self.data) != expected:
            raise InvalidArgument(
                f"pixels.rgb: {len(self.data)} bytes came; {self.height} rows of {self.width} pixels have {expected}.",
                reason="FIELD_INVALID",
            )

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of its data."""
        return hashlib.sha256(self.data).digest()


@dataclass(frozen=True, slots=True)
class Keypoint:
    """A named point, in pixels of the image."""

    label: str
    x: float
    y: float
    confidence: float = 1.0
    """How sure the model is that it can be seen, 0 to 1."""


@dataclass(frozen=True, slots=True)
class RotatedBox:
    """A rectangle that is turned, in pixels of the image."""

    center_x: float
    center_y: float
    width: float
    height: float
    angle_rad: float
    """Clockwise."""


@dataclass(frozen=True, slots=True)
class Detection:
    """An object."""

    box: tuple[float, float, float, float]
    """x_min, y_min, x_max, y_max in pixels of the image."""
    label: str
    class_id: int
    confidence: float
    """0 to 1."""
    keypoints: tuple[Keypoint, ...] = ()
    mask: str = ""
    """Its pixels as COCO's compressed run lengths; empty where the model gives none."""
    rotated_box: RotatedBox | None = None


@dataclass(frozen=True, slots=True)
class Classification:
    """A class of the whole image."""

    label: str
    class_id: int
    confidence: float
    """0 to 1."""


@dataclass(frozen=True, slots=True)
class Result:
    """What was found."""

    detections: tuple[Detection, ...]
    """The most confident first."""
    width: int
    """Of the image in pixels, after its EXIF orientation was applied."""
    height: int
    """Of the image in pixels, after its EXIF orientation was applied."""
    classifications: tuple[Classification, ...] = ()
    """The most likely first; of models that classify."""


class Files(Protocol):
    """Where versions' files are."""

    async def path(self, version: Version) -> Path:
        """A version's file, ready to be read."""
        ...


class Detector:
    """Finds objects in images.

    Args:
        files: The files of the tenants' models.
        runners: Where they run.
    """

    def __init__(self, files: Files, runners: Runners) -> None:
        self._files = files
        self._runners = runners

    async def detect(self, version: Version, image: Image, options: Options) -> Result:
        """Finds objects in an image, in a process of the model's tenant.

        Args:
            version: The model's version to ask.
            image: What to look at.
            options: What is looked for.

        Raises:
            InvalidArgument: UNKNOWN_LABEL, or the image is refused (`runners.images`).
            FailedPrecondition: The model's file is not there, or the model is in
                quarantine.
            ResourceExhausted: Too many calls of the tenant wait.
            Unavailable: The process died; a repeat is safe.
            DeadlineExceeded: It took too long.
        """
        reply = await self._runners.call(
            domain=version.tenant_id,
            task="detect",
            arguments={
                **await self.opening(version),
                **arguments(image, options, _class_ids(version, options.labels)),
            },
            blobs=[image.data],
            subject=subject(version),
            timeout_s=_TIMEOUT_S,
        )
        return read_result(reply.values, version.labels)

    async def opening(self, version: Version) -> dict[str, Any]:
        """The arguments with which a task opens a version: its file, and what that does not say."""
        facts = version.facts
        hints = {"labels": facts.labels, "task": facts.task, "height": facts.height, "width": facts.width}
        return {"path": str(await self._files.path(version)), "sha256": version.sha256, "hints": hints}


def subject(version: Version) -> str:
    """What deaths of a runner are held against: a version, so that a bad canary does not take the stable one along."""
    return f"models/{version.model_id}/versions/{version.number}"


def arguments(image: Image, options: Options, classes: Sequence[int] | None = None) -> dict[str, Any]:
    """What the task `detect` is asked, but for the model.

    Args:
        image: What is looked at.
        options: What is looked for, but for the labels.
        classes: The ids of those that count; None for all.
    """
    return {
        "pixels": [image.height, image.width] if image.height else None,
        "min_confidence": options.min_confidence,
        "iou_threshold": options.iou_threshold,
        "max_detections": options.max_detections,
        "class_agnostic": options.class_agnostic,
        "classes": classes,
    }


def read_result(values: Mapping[str, Any], labels: Sequence[str]) -> Result:
    """Reads what a runner's child says it found. A child is not trusted.

    Raises:
        Internal: RUNNER_REPLY_INVALID: it is not what a child of ours says.
    """
    try:
        width, height = _size(values["width"]), _size(values["height"])
        found = tuple(_detection(entry, labels, width, height) for entry in values["detections"])
        classes = tuple(
            Classification(labels[_index(class_id)], class_id, _number(confidence, 1))
            for class_id, confidence in values.get("classes", ())
        )
        return Result(found, width, height, classes)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise _nonsense() from error


def _class_ids(model: Version, labels: Sequence[str]) -> list[int] | None:
    if not labels:
        return None
    unknown = sorted(set(labels) - set(model.labels))
    if unknown:
        some = ", ".join(model.labels[:_LABELS_SHOWN]) + (", …" if len(model.labels) > _LABELS_SHOWN else "")
        raise InvalidArgument(f'The model has no label "{unknown[0]}"; it has {some}.', reason="UNKNOWN_LABEL")
    wanted = set(labels)
    return [class_id for class_id, label in enumerate(model.labels) if label in wanted]


def _detection(entry: Mapping[str, Any], labels: Sequence[str], width: int, height: int) -> Detection:
    x_min, y_min, x_max, y_max = entry["box"]
    class_id = _index(entry["class_id"])
    return Detection(
        (_number(x_min, width), _number(y_min, height), _number(x_max, width), _number(y_max, height)),
        labels[class_id],
        class_id,
        _number(entry["confidence"], 1),
        tuple(
            Keypoint(str(label), _number(x, width), _number(y, height), _number(sure, 1))
            for label, x, y, sure in entry["keypoints"]
        ),
        _mask(entry.get("mask", "")),
        _rotated(entry.get("rotated_box")),
    )


def _index(number: object) -> int:
    if type(number) is not int or number < 0:
        raise ValueError(number)
    return number


def _mask(counts: object) -> str:
    if not isinstance(counts, str) or not counts.isascii():
        raise ValueError(counts)
    return counts


def _rotated(numbers: Sequence[float] | None) -> RotatedBox | None:
    if numbers is None:
        return None
    return RotatedBox(*(_number(number, _FAR, at_least=-_FAR) for number in numbers))


def _number(value: object, at_most: float, *, at_least: float = 0) -> float:
    # NaN is not within any bounds, and an integer may be too large for a float.
    if not isinstance(value, int | float) or not at_least <= value <= at_most:
        raise ValueError(value)
    return float(value)


def _size(number: object) -> int:
    if type(number) is not int or not 0 < number < 1 << 31:
        raise ValueError(number)
    return number


def _nonsense() -> Internal:
    return Internal("The model's process gave no sensible answer.", reason="RUNNER_REPLY_INVALID")
