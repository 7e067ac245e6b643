"""What every peer runs for a request: the detector as its users write it, with OpenVINO and OpenCV.

Runs in the peers' environments, without facetmesh. The engine is asked for its
best at what the server offers: one image at a time on all cores (LATENCY), or
several at a time (THROUGHPUT), whichever PEER_HINT says.
"""

from __future__ import annotations

import os
import threading
from typing import Any

import cv2
import numpy as np
import openvino as ov

SIDE = 320
_CONFIDENCE = 0.25
_IOU = 0.45


class Detector:
    """NudeNet's detector; may be called on several threads."""

    def __init__(self) -> None:
        properties = {"PERFORMANCE_HINT": os.environ.get("PEER_HINT", "LATENCY")}
        if precision := os.environ.get("PEER_PRECISION"):
            properties["INFERENCE_PRECISION_HINT"] = precision
        core = ov.Core()
        model = core.read_model(os.environ["PEER_MODEL"])
        model.reshape((1, 3, SIDE, SIDE))
        self._compiled = core.compile_model(model, "CPU", properties)
        self._local = threading.local()

    def __call__(self, photo: bytes) -> list[list[float]]:
        """A JPEG in; boxes out: x, y, width, height, confidence, class."""
        image = cv2.imdecode(np.frombuffer(photo, np.uint8), cv2.IMREAD_COLOR)
        rows, columns = image.shape[:2]
        scale = SIDE / max(rows, columns)
        resized = cv2.resize(image, (round(columns * scale), round(rows * scale)))
        canvas = np.full((SIDE, SIDE, 3), 114, np.uint8)
        canvas[: resized.shape[0], : resized.shape[1]] = resized
        blob = cv2.dnn.blobFromImage(canvas, 1 / 255, (SIDE, SIDE), swapRB=True)
        output = self._request().infer([blob])[self._compiled.output(0)][0]
        confidences = output[4:].max(axis=0)
        chosen = np.flatnonzero(confidences >= _CONFIDENCE)
        boxes = output[:4, chosen].T / scale
        kept = cv2.dnn.NMSBoxes(boxes.tolist(), confidences[chosen].tolist(), _CONFIDENCE, _IOU)
        classes = output[4:, chosen].argmax(axis=0)
        return [[*map(float, boxes[i]), float(confidences[chosen][i]), float(classes[i])] for i in kept]

    def _request(self) -> Any:
        if not hasattr(self._local, "request"):
            self._local.request = self._compiled.create_infer_request()
        return self._local.request
