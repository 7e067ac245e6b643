"""The wheel alone, in environments made for it: what a stranger gets who installs the package."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
INSTALL_S = 600


def run(*command: str | Path, cwd: Path) -> str:
    """Runs a command that must succeed, away from the checkout; returns what it printed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=INSTALL_S, cwd=cwd,
                          env=environment)  # fmt: skip
    assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
    return done.stdout


def environment(folder: Path, *requirements: str | Path) -> Path:
    """A new virtual environment with these requirements; returns its bin folder."""
    run(sys.executable, "-m", "venv", folder, cwd=ROOT)
    for requirement in requirements:
        options = ["--require-hashes", "-r"] if str(requirement).endswith(".txt") else ["--prefer-binary"]
        run(folder / "bin/python", "-m", "pip", "install", "-q", *options, requirement, cwd=ROOT)
    return folder / "bin"


@pytest.mark.full
def test_the_wheel_runs_the_demo_and_its_base_install_verifies_what_came_out(tmp_path: Path) -> None:
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", tmp_path, ROOT, cwd=ROOT)
    wheel = next(tmp_path.glob("facetmesh-*.whl"))

    serving = environment(tmp_path / "serving", ROOT / "requirements/serve.txt", wheel)
    answer = json.loads(run(serving / "facetmesh", "--json", "demo", cwd=tmp_path))
    assert answer["steps"][-1]["name"] == "verify the receipts offline"

    base = environment(tmp_path / "base", wheel)
    results = tmp_path / "out/demo"
    for receipt in results.glob("receipt-*.json"):
        verified = run(
            base / "facetmesh", "--json", "audit", "verify", receipt, "--log-key", results / "log.vkey", cwd=tmp_path,
        )
        assert json.loads(verified)["holds"] is True
    installed = run(base / "python", "-m", "pip", "list", "--format=freeze", cwd=tmp_path)
    assert "openvino" not in installed
