"""Checkpoints of ultralytics' become ONNX, in an environment that has it: `make convert-env`."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

import facetmesh
from facetmesh.kit import catalog

PYTHON = catalog.cache_folder() / "convert-env" / "bin" / "python"
SERVICES = Path(facetmesh.__file__).parents[1]
PROGRAM = Path(__file__).with_name("programs") / "converting.py"


@pytest.mark.full
@pytest.mark.skipif(not PYTHON.exists(), reason="`make convert-env` makes the environment that this needs")
def test_a_checkpoint_is_converted_and_a_hostile_one_does_nothing(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(SERVICES), "YOLO_CONFIG_DIR": str(tmp_path)}
    done = subprocess.run(
        [str(PYTHON), str(PROGRAM), str(tmp_path)], env=environment, cwd=tmp_path,
        capture_output=True, text=True, check=False, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen == {
        "task": "detect", "size": [640, 640], "labels": 80, "refused": ["CONVERT_FAILED"] * 3, "touched": False,
    }  # fmt: skip
