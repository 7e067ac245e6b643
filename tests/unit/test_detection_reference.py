"""Our YOLO against the one in NudeNet's own package, box by box, all labels, on real photos.

The package's code runs here in a process of its own, as its publisher ships it:
OpenCV, ONNX Runtime, its own resizing and its own suppression of overlaps, which
asks for no classes: so ours is asked to do likewise.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from facetmesh.detection.heads.geometry import overlaps
from facetmesh.detection.program import detect
from facetmesh.kit import catalog
from facetmesh.runners.settings import EngineSetting
from facetmesh.runners.tasks import Context

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

PHOTOS = ("photo-six-faces", "photo-astronaut")
SIDE = 320
SURE = 0.25
"""The least confidence that the package reports."""

# The package turns OpenCV's BGR into RGB and back again, so that the network,
# which was trained on RGB, gets BGR. Its arrays come reversed here, so that both
# sides see the same colours.
REFERENCE = """
import json, sys
import cv2
sys.path.insert(0, sys.argv[1])
from nudenet import NudeDetector
detector = NudeDetector()
print(json.dumps([detector.detect(cv2.imread(path)[:, :, ::-1].copy()) for path in sys.argv[2:]]))
"""


@dataclass(frozen=True)
class Found:
    """An object that one of both found."""

    label: str
    box: tuple[int, ...]
    """x_min, y_min, width and height in whole pixels, cut off as the package does."""
    confidence: float

    def overlap(self, other: Found) -> float:
        """Intersection over union."""
        mine, theirs = (np.array([x, y, x + w, y + h], np.float32) for x, y, w, h in (self.box, other.box))
        return float(overlaps(mine, theirs[np.newaxis])[0])


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package's code, unpacked."""
    folder = tmp_path_factory.mktemp("nudenet")
    requirement = catalog.ASSETS["nudenet-320n"].requirement
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), requirement]
    subprocess.run(command, check=True, timeout=300)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as box:
        box.extractall(folder)
    return folder


@pytest.fixture(scope="module")
def both(package: Path) -> Any:
    """What each of both finds in pictures."""
    pytest.importorskip("onnxruntime")
    model = catalog.fetch("nudenet-320n", accept_licence="AGPL-3.0")
    code = ast.parse((package / "nudenet" / "nudenet.py").read_text())
    labels: list[str] = next(
        ast.literal_eval(line.value) for line in code.body
        if isinstance(line, ast.Assign) and isinstance(line.value, ast.List)
    )  # fmt: skip
    arguments = {
        "path": str(model), "sha256": catalog.ASSETS["nudenet-320n"].sha256, "classes": None, "min_confidence": SURE,
        "iou_threshold": 0.45, "class_agnostic": True, "max_detections": 100, "pixels": None, "hints": {},
    }  # fmt: skip
    context = Context(EngineSetting())

    def found(pictures: Sequence[Path]) -> list[tuple[list[Found], list[Found]]]:
        done = subprocess.run(
            [sys.executable, "-c", REFERENCE, str(package), *map(str, pictures)],
            check=True, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        theirs = [
            [Found(one["class"], tuple(one["box"]), one["score"]) for one in picture]
            for picture in json.loads(done.stdout)
        ]
        ours = [
            [_whole(one, labels) for one in detect(context, arguments, [path.read_bytes()]).values["detections"]]
            for path in pictures
        ]
        return list(zip(theirs, ours, strict=True))

    return found


def _whole(one: Mapping[str, Any], labels: Sequence[str]) -> Found:
    left, top, right, bottom = one["box"]
    box = (int(left), int(top), int(right - left), int(bottom - top))
    return Found(labels[one["class_id"]], box, one["confidence"])


@pytest.fixture(scope="module")
def photos() -> list[Image.Image]:
    """The real photos, and their mirror images."""
    found = [Image.open(catalog.fetch(photo)).convert("RGB") for photo in PHOTOS]
    return found + [ImageOps.mirror(one) for one in found]


def saved(pictures: Sequence[Image.Image], folder: Path) -> list[Path]:
    paths = [folder / f"{number}.png" for number in range(len(pictures))]
    for picture, path in zip(pictures, paths, strict=True):
        picture.save(path)
    return paths


def partner(one: Found, others: Sequence[Found], least: float) -> Found:
    """The one that lies where this does, with the same label."""
    near = [other for other in others if other.label == one.label and one.overlap(other) >= least]
    assert near, f"{one} has no partner among {others}"
    return max(near, key=one.overlap)


@pytest.mark.full
def test_the_same_boxes_for_the_same_pixels(both: Any, photos: list[Image.Image], tmp_path: Path) -> None:
    """Of pictures that fill the network's input, which nobody needs to resize or to pad: as exact as float32 is."""
    cut = []
    for photo in photos:
        side = min(photo.size)
        for across in (side, side // 2):
            for left in range(0, photo.width - across + 1, max(1, (photo.width - across) // 3)):
                window = photo.crop((left, 0, left + across, across))
                cut.append(window.resize((SIDE, SIDE), Image.Resampling.LANCZOS))
    count = 0
    for theirs, ours in both(saved(cut, tmp_path)):
        # Where a confidence is that of the threshold, the last bits decide.
        certain = [one for one in theirs if one.confidence > SURE + 0.005]
        assert len(certain) <= len(ours) <= len(theirs) + sum(one.confidence < SURE + 0.005 for one in ours)
        for one in certain:
            same = partner(one, ours, 0.8)  # a pixel of a face of 20 is so much
            assert same.confidence == pytest.approx(one.confidence, abs=0.005)
            assert np.abs(np.subtract(same.box, one.box)).max() <= 1
            count += 1
    assert count >= 40


@pytest.mark.full
def test_the_same_boxes_for_whole_photos(both: Any, photos: list[Image.Image], tmp_path: Path) -> None:
    """Padded as the package pads: to a square, with black, at the right and below.

    What remains is how they are made smaller: the package takes four pixels of the photo for each of the input, we take
    the mean of all that fall into it. That moves confidences, and who is at the threshold comes and goes.
    """
    squares = []
    for photo in photos:
        square = Image.new("RGB", (max(photo.size),) * 2)
        square.paste(photo)
        squares.append(square)
    agree(both(saved(squares, tmp_path)), least=0.9, apart=0.15)


@pytest.mark.full
def test_the_same_objects_for_whole_photos_as_they_are(both: Any, photos: list[Image.Image], tmp_path: Path) -> None:
    """Padded by each in its own way.

    We do as the network was trained, by ultralytics: with grey, on both sides. So the photo lies elsewhere in the
    network's grid, by 49 of 320 rows, and what surrounds it is another.
    """
    agree(both(saved(photos, tmp_path)), least=0.8, apart=0.3)


def agree(found: Sequence[tuple[list[Found], list[Found]]], *, least: float, apart: float) -> None:
    """Whatever one is sure of, the other has, with the same label."""
    for theirs, ours in found:
        assert theirs
        for some, others in ((theirs, ours), (ours, theirs)):
            for one in some:
                if one.confidence >= SURE + apart:
                    assert partner(one, others, least).confidence == pytest.approx(one.confidence, abs=apart)
