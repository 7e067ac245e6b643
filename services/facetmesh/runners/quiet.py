"""Importing torch where nothing may be written and no process started."""

from __future__ import annotations

import ctypes.util
import importlib.util
import os
import tempfile
import warnings
from typing import Any

from facetmesh.kit.errors import FailedPrecondition


def import_torch() -> Any:
    """The library torch.

    It asks for folders for its caches, does without files in them, and would
    start a compiler to find a library: of either it would die in a runner.

    Raises:
        FailedPrecondition: TORCH_MISSING: it is not installed.
    """
    if importlib.util.find_spec("torch") is None:
        raise FailedPrecondition(
            "This installation does not run TorchScript: the operator can install facetmesh[torch], or export the "
            "model to ONNX yourself.",
            reason="TORCH_MISSING",
        )
    # Torch deprecates TorchScript at each use of it.
    warnings.filterwarnings("ignore", category=FutureWarning, message="`torch.jit")
    tempfile.tempdir = os.sep
    tempfile.mkdtemp = lambda *_, **__: os.sep  # type: ignore[assignment] # it has overloads
    ctypes.util.find_library = _nowhere
    import torch  # noqa: PLC0415 - the extras [torch] and [convert]

    return torch


def _nowhere(name: str) -> str | None:
    """No library is looked for."""
    del name
    return None
