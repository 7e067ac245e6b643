"""Our YOLO against the one in NudeNet's own package, box by box on real photos.

The package's code runs here in a process of its own, as its publisher ships it:
OpenCV, ONNX Runtime, its own resizing and its own suppression of overlaps.
"""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import numpy as np
import pytest

from facetmesh.detection.heads.geometry import overlaps
from facetmesh.detection.program import detect
from facetmesh.kit import catalog
from facetmesh.runners.settings import EngineSetting
from facetmesh.runners.tasks import Context

if TYPE_CHECKING:
    from pathlib import Path

FACES = {"FACE_FEMALE", "FACE_MALE"}

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


@pytest.mark.full
def test_the_same_faces_with_the_same_labels(package: Path) -> None:
    """Every face that one finds the other finds, in the same place."""
    pytest.importorskip("onnxruntime")
    model = catalog.fetch("nudenet-320n", accept_licence="AGPL-3.0")
    photos = [catalog.fetch("photo-six-faces"), catalog.fetch("photo-astronaut")]
    done = subprocess.run(
        [sys.executable, "-c", REFERENCE, str(package), *map(str, photos)],
        check=True, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    context = Context(EngineSetting())
    names = ["FACE_FEMALE" if index == 1 else "FACE_MALE" for index in range(13)]
    for photo, expected, count in zip(photos, json.loads(done.stdout), (6, 1), strict=True):
        faces = [found for found in expected if found["class"] in FACES]
        assert len(faces) == count
        ours = detect(
            context,
            {
                "path": str(model), "sha256": catalog.ASSETS["nudenet-320n"].sha256, "classes": [1, 12],
                "min_confidence": 0.25, "iou_threshold": 0.45, "max_detections": 100, "pixels": None, "hints": {},
            },
            [photo.read_bytes()],
        ).values["detections"]  # fmt: skip
        assert len(ours) == count
        for face in faces:
            x, y, width, height = face["box"]
            box = np.array([x, y, x + width, y + height], np.float32)
            covered = overlaps(box, np.array([found["box"] for found in ours], np.float32))
            assert covered.max() > 0.75
            best = ours.pop(int(covered.argmax()))
            assert names[best["class_id"]] == face["class"]
            assert best["confidence"] == pytest.approx(face["score"], abs=0.3)
