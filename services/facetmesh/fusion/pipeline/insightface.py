"""InsightFace's models, loaded: FaceAnalysis finds and tells faces, GenderAge guesses, INSwapper draws.

InsightFace's code is under MIT; its models are not free for business (`fusion.weights`).
"""

from __future__ import annotations

import hashlib
import traceback
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from facetmesh.kit.errors import FacetmeshError, FailedPrecondition

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from facetmesh.fusion.pipeline.frames import Image, Pixels
    from facetmesh.runners.settings import EngineSetting

DETECTION_PX = 640
"""Side of the square in which faces are looked for."""
_TASKS = {
    "detection": {"preprocessing": {"mean": 127.5, "std": 128.0}},
    "recognition": {"preprocessing": {"mean": 127.5, "std": 127.5}},
}
"""What SCRFD and ArcFace want done with pixels first, as InsightFace does it for its own packs."""


class FaceAnalysis:
    """InsightFace's models that find and tell faces.

    Args:
        detector: Path and SHA-256 of the one that finds them: SCRFD.
        recognizer: And of the one that tells them, by ArcFace's loss.
        setting: Says whether they run on a card.

    Raises:
        FailedPrecondition: INSIGHTFACE_MISSING; MODEL_CHANGED: a file is another by now; MODEL_UNREADABLE: they are
            not what InsightFace expects, or cannot run where they are to.
    """

    def __init__(self, detector: Mapping[str, str], recognizer: Mapping[str, str], setting: EngineSetting) -> None:
        _check(detector)
        _check(recognizer)
        with _loading():
            # Only where it is chosen: it need not be installed elsewhere.
            from insightface.app import FaceAnalysis as Theirs  # noqa: PLC0415
            from insightface.app.common import Face  # noqa: PLC0415
            from insightface.model_zoo import ModelPackageDescriptor, ModelTaskDescriptor  # noqa: PLC0415

            # Of a folder's name it would make a list of its files, which no runner may, and open them all.
            folder = Path(detector["path"]).resolve().parent
            tasks = {
                task: ModelTaskDescriptor(task, Path(file["path"]).name, Path(file["path"]), folder, metadata)
                for (task, metadata), file in zip(_TASKS.items(), (detector, recognizer), strict=True)
            }
            self._face = Face
            self._models = Theirs(
                ModelPackageDescriptor(folder.name, folder, folder, tasks), **_opening(setting)
            )
            self._models.prepare(ctx_id=0, det_size=(DETECTION_PX, DETECTION_PX))
            for model in self._models.models.values():
                _settled(model, setting)

    def detect(self, image: Pixels) -> Sequence[Any]:
        """InsightFace's faces of an image."""
        boxes, points = self._models.det_model.detect(_bgr(image))
        return [self._face(bbox=box[:4], kps=kps) for box, kps in zip(boxes, points, strict=True)]

    def embedding(self, image: Pixels, face: Any) -> Image:
        """Who a face is; it is kept in the face."""
        if face.embedding is None:
            self._models.models["recognition"].get(_bgr(image), face)
        embedding: Image = face.normed_embedding
        return embedding


class INSwapper:
    """InsightFace's model that draws one face as another's.

    Args:
        file: Its path and SHA-256.
        setting: Says whether it runs on a card.

    Raises:
        FailedPrecondition: As for `FaceAnalysis`.
    """

    def __init__(self, file: Mapping[str, str], setting: EngineSetting) -> None:
        self._model = _model(file, setting)

    def draw(self, image: Pixels, face: Any, identity: Any) -> tuple[Pixels, Image]:
        """A face of an image as another's."""
        drawn, matrix = self._model.get(_bgr(image), face, identity, paste_back=False)
        return np.ascontiguousarray(drawn[..., ::-1]), np.asarray(matrix, np.float32)


class GenderAge:
    """InsightFace's model that guesses sex and age; takes what `INSwapper` does, and raises the same."""

    def __init__(self, file: Mapping[str, str], setting: EngineSetting) -> None:
        self._model = _model(file, setting)
        if getattr(self._model, "taskname", "") != "genderage":
            raise _unreadable()

    def guess(self, image: Pixels, face: Any) -> tuple[str, int]:
        """A face's sex, female or male, and its age in years."""
        gender, age = self._model.get(_bgr(image), face)
        return ("female", "male")[int(gender)], max(0, int(age))


def _model(file: Mapping[str, str], setting: EngineSetting) -> Any:
    """One of InsightFace's models that stand alone, opened."""
    _check(file)
    with _loading():
        from insightface.model_zoo import get_model  # noqa: PLC0415 - as above

        model = get_model(file["path"], **_opening(setting))
        _settled(model, setting)
        return model


def _bgr(image: Pixels) -> Pixels:
    return np.ascontiguousarray(image[..., ::-1])


def _check(file: Mapping[str, str]) -> None:
    path = Path(file["path"])
    try:
        with path.open("rb") as stream:
            changed = hashlib.file_digest(stream, "sha256").hexdigest() != file["sha256"]
    except OSError as error:
        raise _unreadable() from error
    if changed:
        raise FailedPrecondition(f"{path.name} has changed since it was looked at.", reason="MODEL_CHANGED")


def _opening(setting: EngineSetting) -> dict[str, Any]:
    """How InsightFace is to open models."""
    from facetmesh.runners.engines.onnxruntime import session_options  # noqa: PLC0415 - as InsightFace itself

    return {"providers": _providers(setting), "sess_options": session_options()}


def _settled(model: Any, setting: EngineSetting) -> None:
    """Returns when a model runs where it is to: without a card's libraries it would go on, on the CPU."""
    if model is None or model.session.get_providers()[0] != _providers(setting)[0]:
        raise _unreadable()


def _providers(setting: EngineSetting) -> list[str]:
    from facetmesh.runners.engines.onnxruntime import PROVIDERS  # noqa: PLC0415 - as InsightFace itself

    # TensorRT would build its engines anew in each process, for minutes: nothing can be kept in there.
    return PROVIDERS["cpu" if setting.device == "cpu" else "cuda"]


@contextmanager
def _loading() -> Iterator[None]:
    """What InsightFace raises while it loads becomes a refusal: it asserts, and ONNX Runtime's errors have no base."""
    try:
        yield
    except FacetmeshError:
        raise
    except ImportError as error:
        raise FailedPrecondition(
            f"InsightFace cannot be loaded: {error.name or 'a library'} is missing.", reason="INSIGHTFACE_MISSING"
        ) from error
    except Exception as error:
        traceback.print_exc()  # for the operator: what raises so knows more than the refusal says
        raise _unreadable() from error


def _unreadable() -> FailedPrecondition:
    return FailedPrecondition(
        "InsightFace's models cannot be run here: they are not what it expects, or not for this machine.",
        reason="MODEL_UNREADABLE",
    )
