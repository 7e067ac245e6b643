"""Detection: from a tenant's model and an image to the objects in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from facetmesh.kit.errors import Internal, InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from facetmesh.detection.models import Model, Models
    from facetmesh.runners.tasks import Runners

_TIMEOUT_S = 30.0
_LABELS_SHOWN = 20


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


@dataclass(frozen=True, slots=True)
class Keypoint:
    """A named point, in pixels of the image."""

    label: str
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Detection:
    """An object."""

    box: tuple[float, float, float, float]
    """x_min, y_min, x_max, y_max in pixels of the image."""
    label: str
    class_id: int
    confidence: float
    """0 to 1."""
    keypoints: tuple[Keypoint, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """What was found."""

    detections: tuple[Detection, ...]
    """The most confident first."""
    width: int
    """Of the image in pixels, after its EXIF orientation was applied."""
    height: int
    """Of the image in pixels, after its EXIF orientation was applied."""


class Detector:
    """Finds objects in images.

    Args:
        models: The tenants' models.
        runners: Where they run.
    """

    def __init__(self, models: Models, runners: Runners) -> None:
        self._models = models
        self._runners = runners

    async def detect(self, model: Model, image: bytes, options: Options) -> Result:
        """Finds objects in an image, in a process of the model's tenant.

        Args:
            model: The model to ask.
            image: A JPEG, PNG or WebP file.
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
            domain=model.tenant_id,
            task="detect",
            arguments={
                "path": str(self._models.path(model)),
                "sha256": model.sha256,
                "min_confidence": options.min_confidence,
                "iou_threshold": options.iou_threshold,
                "max_detections": options.max_detections,
                "classes": _class_ids(model, options.labels),
            },
            blobs=[image],
            subject=f"models/{model.id}",
            timeout_s=_TIMEOUT_S,
        )
        return read_result(reply.values, model.labels)


async def describe(runners: Runners, tenant_id: str, subject: str, path: Path, sha256: str) -> tuple[str, ...]:
    """Opens a model in a process of the tenant, and returns the names of its classes.

    Raises:
        FailedPrecondition: MODEL_UNSUPPORTED, MODEL_UNREADABLE or MODEL_CHANGED.
    """
    reply = await runners.call(
        domain=tenant_id,
        task="describe",
        arguments={"path": str(path), "sha256": sha256},
        subject=subject,
        timeout_s=_TIMEOUT_S,
    )
    match reply.values:
        case {"labels": [*labels]} if all(isinstance(label, str) for label in labels):
            return tuple(labels)
    raise _nonsense()


def read_result(values: Mapping[str, Any], labels: Sequence[str]) -> Result:
    """Reads what a runner's child says it found. A child is not trusted.

    Raises:
        Internal: RUNNER_REPLY_INVALID: it is not what a child of ours says.
    """
    try:
        width, height = _size(values["width"]), _size(values["height"])
        found = tuple(_detection(entry, labels, width, height) for entry in values["detections"])
        return Result(found, width, height)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise _nonsense() from error


def _class_ids(model: Model, labels: Sequence[str]) -> list[int] | None:
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
    class_id = entry["class_id"]
    if type(class_id) is not int or class_id < 0:
        raise ValueError(class_id)
    return Detection(
        (_number(x_min, width), _number(y_min, height), _number(x_max, width), _number(y_max, height)),
        labels[class_id],
        class_id,
        _number(entry["confidence"], 1),
        tuple(Keypoint(str(label), _number(x, width), _number(y, height)) for label, x, y in entry["keypoints"]),
    )


def _number(value: object, at_most: float) -> float:
    # NaN is not within any bounds.
    if not isinstance(value, int | float) or not 0 <= value <= at_most:
        raise ValueError(value)
    return float(value)


def _size(number: object) -> int:
    if type(number) is not int or not 0 < number < 1 << 31:
        raise ValueError(number)
    return number


def _nonsense() -> Internal:
    return Internal("The model's process gave no sensible answer.", reason="RUNNER_REPLY_INVALID")
