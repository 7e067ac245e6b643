"""`facetmesh demo`, whole and interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from .rig import DEADLINE_S, descendants, none_left, until

if TYPE_CHECKING:
    from pathlib import Path

PNG = b"\x89PNG\r\n\x1a\n"


def start(folder: Path, *options: str) -> subprocess.Popen[str]:
    (folder / "tmp").mkdir()
    return subprocess.Popen(
        [sys.executable, "-m", "facetmesh.cli", "demo", "--json", *options], cwd=folder, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "TMPDIR": str(folder / "tmp")},
    )


@pytest.mark.parametrize("sidecar", ["embedded", pytest.param("daprd", marks=pytest.mark.full)])
def test_the_whole_job(tmp_path: Path, sidecar: str) -> None:
    job = start(tmp_path, f"--sidecar={sidecar}")
    out, err = job.communicate(timeout=3 * DEADLINE_S)
    assert job.returncode == 0, err
    steps: dict[str, Any] = {step["name"]: step["result"] for step in json.loads(out)["steps"]}
    assert steps["detect faces"].startswith("6 faces")
    assert "refused 3 times" in steps["globex asks for what is acme's"]
    assert steps["verify the receipts offline"].startswith("2 of 2 hold")
    for picture in ("detected.png", "fused.png", "fusion.png"):
        assert (tmp_path / "out/demo" / picture).read_bytes().startswith(PNG)
    assert list((tmp_path / "tmp").iterdir()) == [], "nothing but the results is left"


@pytest.mark.parametrize("step", ["start the mesh", pytest.param("fuse a face into a photo", marks=pytest.mark.full)])
def test_an_interrupt_at_any_moment_leaves_nothing(tmp_path: Path, step: str) -> None:
    job = start(tmp_path)
    reached = threading.Event()
    reader = threading.Thread(target=lambda: [reached.set() for line in job.stderr or () if line.strip() == step])
    reader.start()
    assert reached.wait(DEADLINE_S), step
    own = psutil.Process(job.pid)
    family = descendants(own)
    job.send_signal(signal.SIGINT)
    family += descendants(own)
    assert job.wait(DEADLINE_S) == 130
    until(lambda: none_left(family), "no process is left")
    reader.join()
    assert list((tmp_path / "tmp").iterdir()) == [], "its state folder is gone"
