"""The limit: the engine in a loop, with everything that makes it fast and nothing around it.

OpenVINO with the setting that the probe chose, the JPEG decoded at the scale that
is needed, no more grey around it than the model asks for, conversion in the graph;
`python -m bench.bare THREADS SECONDS` prints images a second, the p50 and the
processor time of an image in milliseconds. The threads share a compiled model with
a stream for each core; with `--copies` each has one of its own. No threads: one
image at a time on all cores.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import threading
import time
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import openvino as ov
import simplejpeg
from openvino.preprocess import PrePostProcessor

from bench import inputs
from facetmesh.kit import catalog
from facetmesh.runners.probe import probe

if TYPE_CHECKING:
    from collections.abc import Mapping

_CONFIDENCE = 0.25
_IOU = 0.45
_GREY = 114
_INPUT = (inputs.SIDE, 256)
"""Rows and columns of the model's input: no more than the photo needs, whose sides are 4 and 3."""
_SMALLEST = 540
"""Rows of half the photo: the least that is decoded by vector code and no smaller than the model's input."""


def main() -> None:
    """Runs it, and prints a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("threads", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--copies", action="store_true")
    options = parser.parse_args()
    seconds = options.seconds
    photo = inputs.photo().read_bytes()
    times: list[float] = []
    ready = requests(options.threads, copies=options.copies)
    for request in ready:
        detect(request, photo)
    end = time.perf_counter() + seconds

    def loop(request: Any) -> None:
        while (began := time.perf_counter()) < end:
            detect(request, photo)
            times.append(time.perf_counter() - began)

    spent = time.process_time()
    workers = [threading.Thread(target=loop, args=(request,)) for request in ready]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    cpu_ms = 1000 * (time.process_time() - spent) / len(times)
    print(json.dumps({"ips": len(times) / seconds, "p50_ms": statistics.median(times) * 1000, "cpu_ms": cpu_ms}))


def detect(request: Any, photo: bytes) -> list[int]:
    """A JPEG in, the indices of the boxes that are left out."""
    pixels = simplejpeg.decode_jpeg(photo, "RGB", min_height=_SMALLEST)
    rows, columns = pixels.shape[:2]
    scale = inputs.SIDE / max(rows, columns)
    height, width = round(rows * scale), round(columns * scale)
    top, left = (_INPUT[0] - height) // 2, (_INPUT[1] - width) // 2
    canvas = np.full((1, *_INPUT, 3), _GREY, np.uint8)
    canvas[0, top : top + height, left : left + width] = cv2.resize(pixels, (width, height))
    (output,) = request.infer(canvas, share_inputs=True, share_outputs=True).to_tuple()[0]
    confidences = output[4:].max(axis=0)
    chosen = np.flatnonzero(confidences >= _CONFIDENCE)
    boxes = output[:4, chosen].T
    return list(cv2.dnn.NMSBoxes(boxes.tolist(), confidences[chosen].tolist(), _CONFIDENCE, _IOU))


def requests(threads: int, *, copies: bool = False) -> list[Any]:
    """An engine's request for each thread; one that has all cores for none."""
    return [compiled.create_infer_request() for compiled in _compiled(threads, copies=copies)]


def _compiled(threads: int, *, copies: bool) -> list[Any]:
    """A compiled model for each thread."""
    if not threads:
        return [_compile({"PERFORMANCE_HINT": "LATENCY"})]
    if copies:
        # Pinned, each copy would take the first core for its own.
        alone = {"NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": 1, "ENABLE_CPU_PINNING": False}
        return [_compile(alone) for _ in range(threads)]
    cores = len(os.sched_getaffinity(0))
    return [_compile({"NUM_STREAMS": cores, "INFERENCE_NUM_THREADS": cores})] * threads


def _compile(properties: Mapping[str, Any]) -> Any:
    core = ov.Core()
    model = core.read_model(inputs.model())
    model.reshape((1, 3, *_INPUT))
    processor = PrePostProcessor(model)
    entry = processor.input()
    entry.tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    entry.model().set_layout(ov.Layout("NCHW"))
    entry.preprocess().convert_element_type(ov.Type.f32).scale(255.0)
    precision = probe(catalog.cache_folder()).chosen().precision
    if precision is not None:
        properties = {**properties, "INFERENCE_PRECISION_HINT": precision}
    return core.compile_model(processor.build(), "CPU", dict(properties))


if __name__ == "__main__":
    main()
