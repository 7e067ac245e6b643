"""Detection's program: what runs in a runner's child.

    detect      finds objects in an image
    infer       runs a model on a tensor, or an image, and returns its raw outputs (`raw`)
    load        opens a model as infer does, before it is asked
    unload      lets go of a model

Arguments of each task: `path` and `sha256` of the model's file, and `hints` for
what that does not say of itself (`hints.Hints`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from facetmesh.detection import heads, raw
from facetmesh.detection.heads.classify import YoloClassify
from facetmesh.detection.heads.geometry import Overlap, cover, least_size, lengths, letterbox
from facetmesh.detection.hints import Hints
from facetmesh.runners.engines import ImageInput, read_model
from facetmesh.runners.images import Scaled, decode_scaled
from facetmesh.runners.tasks import Context, Reply

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from facetmesh.runners.engines import Graph, Model
    from facetmesh.runners.tasks import Task

_SIZES = 5
"""As many as `least_size` knows of an input."""


def detect(context: Context, arguments: Mapping[str, Any], blobs: Sequence[bytes]) -> Reply:
    """Finds objects in the image that is the one blob: a file, or pixels.

    Further arguments: `pixels`, height and width of the pixels, or null for a
    file; `min_confidence`, `iou_threshold`, `class_agnostic`, `max_detections`, and
    `classes`, the ids of the classes that count, or null for all.

    Replies `width` and `height` of the image after its EXIF orientation was
    applied, and `detections`, the most confident first: `box` [x_min, y_min,
    x_max, y_max] and `keypoints` [[name, x, y, confidence], …] in its pixels,
    `class_id` and `confidence`, and where the model gives them, `mask` (COCO's
    run lengths) and `rotated_box` [centre's x and y, width, height, angle]. Of a
    model that classifies, `classes` [[id, confidence], …] instead.
    """
    opened = _open(context, arguments)
    head = opened.head
    image = _image(blobs[0], arguments["pixels"], longer_side=max(head.size))
    original = image.height, image.width
    if isinstance(head, YoloClassify):
        pixels, _ = cover(image.pixels, head.size, original)
        classes = head.classes(raw.run(opened.model(head.size), pixels, arguments), arguments["min_confidence"])
        wanted = [one for one in classes if arguments["classes"] is None or one[0] in arguments["classes"]]
        best = wanted[: arguments["max_detections"]]
        return Reply({"width": image.width, "height": image.height, "detections": [], "classes": best})
    size = opened.size_for(original)
    pixels, placement = letterbox(image.pixels, size, original, fill=head.fill)
    outputs = raw.run(opened.model(size), pixels, arguments)
    found = head.candidates(outputs, arguments["min_confidence"])
    if arguments["classes"] is not None:
        found = found[np.isin(found.classes, arguments["classes"])]
    overlap = Overlap(arguments["iou_threshold"], across_classes=arguments["class_agnostic"])
    found = head.select(found, overlap, arguments["max_detections"])
    boxes = placement.to_image(found.boxes.reshape(-1, 2, 2), image.width, image.height).reshape(-1, 4)
    visible = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    found, boxes = found[visible], boxes[visible]
    keypoints = placement.to_image(found.keypoints, image.width, image.height)
    details = head.details(found, outputs, placement, original)
    certain = [1.0] * len(head.keypoints)
    return Reply({
        "width": image.width,
        "height": image.height,
        "detections": [
            {
                "box": box.tolist(),
                "class_id": int(class_id),
                "confidence": float(confidence),
                "keypoints": [
                    [name, *point, seen]
                    for name, point, seen in zip(
                        head.keypoints, points.tolist(), detail.pop("seen", certain), strict=True
                    )
                ],
                **detail,
            }
            for box, class_id, confidence, points, detail in zip(
                boxes, found.classes, found.confidences, keypoints, details, strict=True
            )
        ],
    })


def _image(data: bytes, size: Sequence[int] | None, *, longer_side: int) -> Scaled:
    if size is None:
        return decode_scaled(data, longer_side=longer_side)
    height, width = size
    return Scaled(np.frombuffer(data, np.uint8).reshape(height, width, 3), width, height)


def _open(context: Context, arguments: Mapping[str, Any]) -> _Opened:
    key = (arguments["sha256"], *map(str, arguments["hints"].values()))
    return context.once(key, lambda: _Opened(context, key, arguments))


class _Opened:
    """A model's file, and what is compiled of it for each size of its input that is asked for.

    Args:
        context: Where it is kept.
        key: Under which.
        arguments: The task's, which name the file.
    """

    def __init__(self, context: Context, key: tuple[str, ...], arguments: Mapping[str, Any]) -> None:
        self._setting = context.setting
        self._path = Path(arguments["path"])
        self._sha256: str = arguments["sha256"]
        graph = self._read()
        self.head = heads.of(graph, Hints(**arguments["hints"]))
        self._stride = self._stride_of(graph)
        self._graphs = [graph]
        self._models = Context(context.setting, _SIZES, crowded=lambda: context.relieve(key))

    def size_for(self, original: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the input for an image of so many rows and columns."""
        return self.head.size if self._stride is None else least_size(self.head.size, original, self._stride)

    def model(self, size: tuple[int, int]) -> Model:
        """Compiled for an input of this height and width."""
        return self._models.once(size, lambda: self._compile(size))

    def _read(self) -> Graph:
        return read_model(self._path, sha256=self._sha256)

    def _compile(self, size: tuple[int, int]) -> Model:
        try:
            graph = self._graphs.pop()
        except IndexError:
            # It could have been kept; but to read it again takes less than to compile it, and it may never be needed.
            graph = self._read()
        height, width = size
        return graph.compile(self._setting, ImageInput(height, width, self.head.mean, self.head.scale))

    def _stride_of(self, graph: Graph) -> int | None:
        stride = self.head.stride
        if stride is None:
            return None
        height, width = (lengths(side, stride)[0] for side in self.head.size)
        return stride if graph.leaves_open(self._setting, height, width) else None


TASKS: Mapping[str, Task] = {"detect": detect, "infer": raw.infer, "load": raw.load, "unload": raw.unload}
