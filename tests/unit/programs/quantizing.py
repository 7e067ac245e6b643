"""Run with an interpreter that has NNCF: a model of 8 bits, made as the workshop makes it.

The arguments are the path, SHA-256 and hints (JSON) of a model's file, and a
folder with images, which gets `quantized.onnx`.
"""

from __future__ import annotations

import asyncio
import functools
import json
import sys
from pathlib import Path

from facetmesh.detection.hints import Hints
from facetmesh.detection.workshop import Workshop
from facetmesh.runners.pool import RunnerPool


async def main(path: Path, sha256: str, hints: Hints, images: list[bytes]) -> bytes:
    """Quantizes it."""
    workshop = Workshop(functools.partial(RunnerPool, readable=[path.parent]))
    return await workshop.quantize(path, sha256, hints, images)


folder = Path(sys.argv[4])
files = [file.read_bytes() for file in sorted(folder.glob("*.jpg"))]
made = asyncio.run(main(Path(sys.argv[1]), sys.argv[2], Hints(**json.loads(sys.argv[3])), files))
(folder / "quantized.onnx").write_bytes(made)
