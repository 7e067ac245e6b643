"""Fusion's program, which runs in a runner's child: its tasks are in TASKS."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from facetmesh.fusion.pipeline.backends import Backend, MeshBackend, Sought
from facetmesh.fusion.pipeline.fingerprint import fingerprint as fingerprint_of
from facetmesh.fusion.pipeline.insightface import FaceAnalysis, GenderAge, INSwapper
from facetmesh.fusion.pipeline.label import labelled
from facetmesh.fusion.pipeline.landmarks import Box
from facetmesh.fusion.pipeline.mark import Marking
from facetmesh.fusion.pipeline.rendering import Rendering
from facetmesh.fusion.pipeline.swapping import InsightFaceBackend, guesses, similarities
from facetmesh.fusion.weights import DETECTOR, GUESSER, LANDMARKS, RECOGNIZER, SWAPPER
from facetmesh.kit.errors import FacetmeshError, InvalidArgument, Unavailable
from facetmesh.runners.engines import open_model
from facetmesh.runners.images import DEFAULT_LIMITS, ImageLimits, decode, encode_jpeg, encode_png
from facetmesh.runners.tasks import Reply

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from facetmesh.runners.tasks import Context, Task

_OURS = ImageLimits(file_bytes=1 << 30)
"""Files that were made here may be larger than those that are sent: a PNG is, beside the JPEG that it came of."""
_COPY_PX = 2048

# The runners of other tenants want the same cores.
cv2.setNumThreads(1)


def fuse(context: Context, arguments: Mapping[str, Any], blobs: Sequence[bytes]) -> Reply:
    """Puts the face of the first image into the second.

    Arguments: `backend`; `models`, the `path` and `sha256` of each by its name; `source`, a face, and
    `targets`, at least one; each with `box` [x_min, y_min, x_max, y_max] and `eyes`
    [[x, y], [x, y]], the subject's right one first, or null; `rendering`, the fields of
    a Rendering; `leave_refused`: whether targets that will not do are left as they are,
    as long as one does.

    Replies the PNG file; a smaller JPEG of it, where it is larger than files may be that are sent; and as `refused`
    the reason why each target was left, null for those that were replaced.
    """
    source, target = (_decode(blob, which) for which, blob in zip(("source", "target"), blobs, strict=True))
    backend = _backend(context, arguments["backend"], arguments["models"])
    source_face = backend.find(source, _sought(arguments["source"]), "source")
    refusals: list[InvalidArgument | None] = []
    faces = []
    for face in arguments["targets"]:
        try:
            faces.append(backend.find(target, _sought(face), "target"))
            refusals.append(None)
        except InvalidArgument as error:
            if not arguments["leave_refused"]:
                raise
            refusals.append(error)
    if not faces:
        raise next(error for error in refusals if error is not None)
    rendering, made = Rendering.of(arguments["rendering"]), target
    for found in faces:
        made = backend.fuse(source, source_face, made, found, rendering)
    file = encode_png(made)
    copies = [encode_jpeg(_smaller(made))] if len(file) > DEFAULT_LIMITS.file_bytes else []
    return Reply({"refused": [error and error.reason for error in refusals]}, [file, *copies])


def resemble(context: Context, arguments: Mapping[str, Any], blobs: Sequence[bytes]) -> Reply:
    """Says how much faces look like that of a reference.

    Arguments: `models`, as for `fuse`; `faces`, those of the second image that come into question. The first image is
    the reference. Replies the `similarities`, -1 to 1 for each face, null where there is none to the model. What the
    faces are known by stays here, and goes with the call.
    """
    reference, image = (_decode(blob, which) for blob, which in zip(blobs, ("reference", "target"), strict=True))
    boxes = [_sought(face).box for face in arguments["faces"]]
    return Reply({"similarities": similarities(_analysis(context, arguments["models"]), reference, image, boxes)})


def guess(context: Context, arguments: Mapping[str, Any], blobs: Sequence[bytes]) -> Reply:
    """Guesses at faces.

    Arguments: `models`, as for `fuse`; `faces`, those of the one image that come into question. Replies the `guesses`,
    [sex, age in years] for each face, null where there is none to the model.
    """
    (image,) = (_decode(blob, "target") for blob in blobs)
    boxes = [_sought(face).box for face in arguments["faces"]]
    file = arguments["models"][GUESSER]
    model = context.once(("guesser", file["sha256"]), lambda: GenderAge(file, context.setting))
    return Reply({"guesses": guesses(_analysis(context, arguments["models"]), model, image, boxes)})


def mark(context: Context, arguments: Mapping[str, Any], blobs: Sequence[bytes]) -> Reply:
    """Makes the manifest of a picture, up to its signature.

    Arguments: `id` for `seal`; `chain`, the signer's certificates in PEM; `facts`, what the manifest says; `label`,
    words that are put into the picture, if any. The one blob is the PNG file. Replies what is to be signed.
    """
    (image,) = blobs
    if arguments["label"]:
        image = encode_png(labelled(decode(image, _OURS), arguments["label"]))
    made = Marking(image, arguments["chain"], arguments["facts"])
    context.forget(arguments["id"])
    return Reply(blobs=[context.once(("mark", arguments["id"]), lambda: made).begin()])


def seal(context: Context, arguments: Mapping[str, Any], blobs: Sequence[bytes]) -> Reply:
    """Ends what `mark` began. Arguments: `id`. The one blob is the signature. Replies the marked PNG file."""
    (signature,) = blobs
    marking = context.once(("mark", arguments["id"]), _lost)
    context.forget(arguments["id"])
    return Reply(blobs=[marking.finish(signature)])


def fingerprint(_: Context, __: Mapping[str, Any], blobs: Sequence[bytes]) -> Reply:
    """Says how an image looks: replies its `fingerprint`, 64 bits in hex."""
    (image,) = blobs
    return Reply({"fingerprint": fingerprint_of(decode(image, _OURS))})


def _smaller(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    rows, columns = pixels.shape[:2]
    scale = min(1.0, _COPY_PX / max(rows, columns))
    size = max(1, round(columns * scale)), max(1, round(rows * scale))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).astype(np.uint8)


def _lost() -> Marking:
    raise Unavailable("The process was replaced while it marked the picture.", reason="RUNNER_REPLACED")


def _backend(context: Context, name: str, models: Mapping[str, Mapping[str, str]]) -> Backend[Any]:
    mesh = _landmark_model(context, models[LANDMARKS])
    if name == "mesh":
        return MeshBackend(mesh)
    swapper = models[SWAPPER]
    drawing = context.once(("swapper", swapper["sha256"]), lambda: INSwapper(swapper, context.setting))
    return InsightFaceBackend(mesh, _analysis(context, models), drawing)


def _analysis(context: Context, models: Mapping[str, Mapping[str, str]]) -> FaceAnalysis:
    detector, recognizer = models[DETECTOR], models[RECOGNIZER]
    key = ("analysis", detector["sha256"], recognizer["sha256"])
    return context.once(key, lambda: FaceAnalysis(detector, recognizer, context.setting))


def _landmark_model(context: Context, file: Mapping[str, str]) -> Any:
    # bf16 moves landmarks by up to half a pixel of 192, and saves a millisecond.
    setting = dataclasses.replace(context.setting, precision="f32")
    return context.once(file["sha256"], lambda: open_model(Path(file["path"]), setting, sha256=file["sha256"]))


def _decode(blob: bytes, which: str) -> NDArray[np.uint8]:
    try:
        return decode(blob)
    except FacetmeshError as error:
        raise type(error)(
            f"The {which} image: {error.message}", reason=error.reason, metadata={**error.metadata, "image": which}
        ) from error


def _sought(face: Mapping[str, Any]) -> Sought:
    return Sought(Box(*face["box"]), None if face["eyes"] is None else np.array(face["eyes"], np.float32))


TASKS: Mapping[str, Task] = {
    "fuse": fuse, "resemble": resemble, "guess": guess, "mark": mark, "seal": seal, "fingerprint": fingerprint,
}  # fmt: skip
