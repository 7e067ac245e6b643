"""Run with an interpreter that has torch and ultralytics: what becomes of checkpoints, as JSON.

The argument is a folder to work in.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import json
import os
import pickle
import sys
from pathlib import Path
from typing import Any

from facetmesh.detection.hints import NONE
from facetmesh.detection.workshop import Workshop
from facetmesh.kit.errors import FacetmeshError
from facetmesh.runners.pool import RunnerPool


class Hostile:
    """Writes a file when it is read, and says nothing."""

    def __init__(self, path: Path) -> None:
        """Knows where."""
        self._path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        """What is run by who reads it."""
        return (os.system, (f"touch {self._path}",))


async def main(folder: Path) -> None:
    """Converts a real checkpoint, and files that are none."""
    from ultralytics import YOLO  # type: ignore[import-not-found] # noqa: PLC0415 - only in that environment

    YOLO("yolo11n.yaml").save(str(folder / "yolo.pt"))
    workshop = Workshop(functools.partial(RunnerPool, readable=[folder]))
    onnx = await workshop.convert((folder / "yolo.pt").read_bytes())
    path = folder / "model.onnx"
    path.write_bytes(onnx)
    facts = await workshop.inspect(path, hashlib.sha256(onnx).hexdigest(), NONE)
    refused = []
    for file in (b"no checkpoint", pickle.dumps(Hostile(folder / "touched")), pickle.dumps({"model": 5})):
        try:
            await workshop.convert(file)
        except FacetmeshError as error:
            refused.append(error.reason)
    json.dump(
        {
            "task": facts.task, "size": [facts.height, facts.width], "labels": len(facts.labels), "refused": refused,
            "touched": (folder / "touched").exists(),
        },
        sys.stdout,
    )  # fmt: skip


asyncio.run(main(Path(sys.argv[1])))
