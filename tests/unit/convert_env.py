"""The environment that has torch and ultralytics, which the project's own does not: `make convert-env`."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

import facetmesh
from facetmesh.kit import catalog

_PYTHON = catalog.cache_folder() / "convert-env" / "bin" / "python"
_SERVICES = Path(facetmesh.__file__).parents[1]
needed = pytest.mark.skipif(
    not _PYTHON.exists(), reason="`make convert-env` makes the environment that this needs"
)


def seen_by(program: str, folder: Path, *, timeout_s: float) -> dict[str, Any]:
    """What one of tests/unit/programs says of its work in a folder, in its last line."""
    done = subprocess.run(
        [str(_PYTHON), str(Path(__file__).with_name("programs") / program), str(folder)],
        env={**os.environ, "PYTHONPATH": str(_SERVICES), "YOLO_CONFIG_DIR": str(folder)}, cwd=folder,
        capture_output=True, text=True, check=False, timeout=timeout_s,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return seen
