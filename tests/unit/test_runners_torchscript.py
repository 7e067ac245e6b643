"""TorchScript files: told by their content here, and run by torch in an environment that has it: `make convert-env`."""

from __future__ import annotations

import importlib.util
import zipfile
from typing import TYPE_CHECKING

import pytest

from facetmesh.kit.errors import FailedPrecondition
from facetmesh.runners.engines import file_kind, read_model

from .convert_env import needed, seen_by

if TYPE_CHECKING:
    from pathlib import Path


def archive(path: Path, *members: str) -> Path:
    """A zip file with these, empty."""
    with zipfile.ZipFile(path, "w") as file:
        for member in members:
            file.writestr(member, b"")
    return path


def test_a_file_is_told_by_its_content(tmp_path: Path) -> None:
    script = archive(tmp_path / "model.onnx", "model/data.pkl", "model/code/__torch__.py", "model/constants.pkl")
    assert file_kind(script) == "torchscript"
    # A checkpoint, and names that only look so.
    assert file_kind(archive(tmp_path / "1.onnx", "archive/data.pkl", "constants.pkl", "a/b/constants.pkl")) == "onnx"
    for content in (b"", b"PK", b"PK\3\4 a zip file, say", script.read_bytes()[:-30]):
        (tmp_path / "2.onnx").write_bytes(content)
        assert file_kind(tmp_path / "2.onnx") == "onnx"
    assert file_kind(archive(tmp_path / "3.tflite")) == "tflite"


def test_an_installation_without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(FailedPrecondition) as caught:
        read_model(archive(tmp_path / "model.onnx", "model/constants.pkl"))
    assert caught.value.reason == "TORCH_MISSING"


@pytest.mark.full
@needed
def test_torch_serves_what_openvino_serves_of_the_same_weights(tmp_path: Path) -> None:
    """In runners, confined; and what wants to read or write files, or is nothing, is refused."""
    seen = seen_by("scripting.py", tmp_path, timeout_s=1800)
    # Of boxes in 640 pixels.
    assert seen.pop("difference") < 0.05
    assert seen == {
        "task": "detect", "size": [640, 640], "labels": ["class 0", "class 1"], "outputs": [[1, 84, 8400]],
        "refused": {
            "garbage": "MODEL_UNREADABLE", "reader": "MODEL_UNREADABLE", "silent": "MODEL_UNSUPPORTED",
            "writer": "MODEL_UNREADABLE",
        },
        "touched": False,
    }  # fmt: skip
