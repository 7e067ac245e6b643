"""The folder for what lies in clear: gone with its process, however that ended."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from facetmesh.detection.folders import held

if TYPE_CHECKING:
    from pathlib import Path

HOLDER = """
import sys
from pathlib import Path
from facetmesh.detection.folders import held

with held(Path(sys.argv[1])) as folder:
    (folder / "model.onnx").write_bytes(b"in clear")
    print(folder, flush=True)
    sys.stdin.read()
"""


def test_it_goes_with_its_user(tmp_path: Path) -> None:
    with held(tmp_path) as folder:
        (folder / "file").write_bytes(b"x")
        assert folder.stat().st_mode & 0o077 == 0
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path) -> None:
    """And nothing of one that lives, of others, or of what only has such a name."""
    (tmp_path / "other").mkdir()
    (tmp_path / "facetmesh-other").mkdir()
    (tmp_path / "facetmesh-clear-file").write_bytes(b"x")
    (tmp_path / "facetmesh-clear-link").symlink_to(tmp_path / "other")
    stay = {"other", "facetmesh-other", "facetmesh-clear-file", "facetmesh-clear-link"}
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        name = process.stdout.readline().strip().rpartition("/")[2]
        with held(tmp_path) as folder:
            assert {path.name for path in tmp_path.iterdir()} == {*stay, name, folder.name}
        process.kill()
        process.wait()
    assert (tmp_path / name / "model.onnx").read_bytes() == b"in clear"
    with held(tmp_path) as folder:
        assert {path.name for path in tmp_path.iterdir()} == {*stay, folder.name}
