"""The wheel alone, in an environment of its own and far from the checkout, does the whole job."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]


def pip(python: Path, *arguments: str) -> None:
    """Runs pip quietly."""
    command = [str(python), "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments]
    subprocess.run(command, check=True, cwd=ROOT)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of an environment that has the wheel and its pinned requirements."""
    folder = tmp_path_factory.mktemp("wheel")
    pip(Path(sys.executable), "wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), str(ROOT))
    (wheel,) = folder.glob("facetmesh-*.whl")
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    python = folder / "venv/bin/python"
    pip(python, "install", "--require-hashes", "-r", str(ROOT / "requirements/serve.txt"))
    pip(python, "install", "--no-deps", str(wheel))
    return python.parent


@pytest.mark.full
def test_the_wheel_alone_runs_the_demo(installed: Path, tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    done = subprocess.run(
        [str(installed / "facetmesh"), "demo"], cwd=tmp_path, env=environment, capture_output=True, text=True,
        check=False, timeout=300,
    )
    assert done.returncode == 0, done.stderr
    pictures = sorted(path.name for path in (tmp_path / "out/demo").glob("*.png"))
    assert len(pictures) >= 2
    left = [p for p in psutil.process_iter(["cmdline"]) if str(installed.parent) in " ".join(p.info["cmdline"] or ())]
    assert not left


@pytest.mark.full
def test_the_wheel_brings_what_the_gateway_is_made_from(installed: Path, tmp_path: Path) -> None:
    look = "from facetmesh.cli.gateway.bootstrap import shipped; print(shipped('envoy.yaml'), shipped('openapi.json'))"
    found = subprocess.run(
        [str(installed / "python"), "-c", look], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert found.stdout.count("facetmesh/_data/gateway/") == 2


@pytest.mark.full
def test_the_base_install_is_light_and_says_what_it_lacks(tmp_path: Path, installed: Path) -> None:
    (wheel,) = installed.parent.parent.glob("facetmesh-*.whl")
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv/bin/python"
    pip(python, "install", str(wheel))
    done = subprocess.run(
        [str(python.parent / "facetmesh"), "demo"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert 'pip install "facetmesh[serve]"' in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    helped = subprocess.run([str(python.parent / "facetmesh"), "--help"], capture_output=True, text=True, check=True)
    assert "audit" in helped.stdout
