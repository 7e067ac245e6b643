"""Checkpoints of ultralytics' become ONNX, in an environment that has it: `make convert-env`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .convert_env import needed, seen_by

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.full
@needed
def test_a_checkpoint_is_converted_and_a_hostile_one_does_nothing(tmp_path: Path) -> None:
    seen = seen_by("converting.py", tmp_path, timeout_s=900)
    assert seen == {
        "task": "detect", "size": [640, 640], "labels": 80, "refused": ["CONVERT_FAILED"] * 3, "touched": False,
    }  # fmt: skip
