"""Run with an interpreter that has torch and ultralytics: what becomes of TorchScript files, as JSON.

The argument is a folder to work in.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import json
import sys
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ultralytics import YOLO  # type: ignore[import-not-found] # only in that environment

from facetmesh.detection.hints import NONE
from facetmesh.detection.workshop import UPLOAD, Workshop
from facetmesh.kit import catalog
from facetmesh.kit.errors import FacetmeshError
from facetmesh.runners.pool import RunnerPool


class Reader(torch.nn.Module):
    """Gives what stands in a file, whatever it sees."""

    def __init__(self, path: Path) -> None:
        """Knows where."""
        super().__init__()
        self.path = str(path)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """What TorchScript's language allows."""
        return image.sum() + torch.from_file(self.path, False, 8, dtype=torch.uint8).float()


class Writer(torch.nn.Module):
    """Makes a file, whatever it sees."""

    def __init__(self, path: Path) -> None:
        """Knows where."""
        super().__init__()
        self.path = str(path)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """What TorchScript's language allows."""
        return image.sum() + torch.from_file(self.path, True, 8, dtype=torch.uint8).float()


def exported(folder: Path) -> Path:
    """A TorchScript file as users make it, beside the checkpoint that it is made of."""
    fresh = YOLO("yolo11n.yaml")
    fresh.model.names = {index: f"class {index}" for index in range(80)}
    fresh.save(str(folder / "yolo.pt"))
    return Path(YOLO(str(folder / "yolo.pt")).export(format="torchscript")).rename(folder / "good.onnx")


async def refused(workshop: Workshop, path: Path) -> str:
    """Why a file is."""
    try:
        await workshop.inspect(path, sha256(path), NONE)
    except FacetmeshError as error:
        return error.reason
    return ""


async def raw(pool: RunnerPool, path: Path) -> np.ndarray[Any, Any]:
    """What a model makes of a photo, as it serves."""
    arguments = {
        "path": str(path), "sha256": sha256(path), "hints": asdict(NONE), "datatype": "FP32",
        "shape": [1, 3, 640, 640], "image": True, "wanted": [],
    }  # fmt: skip
    photo = catalog.fetch("photo-six-faces").read_bytes()
    reply = await pool.call(domain="acme", task="infer", arguments=arguments, blobs=[photo], timeout_s=300)
    (output,) = reply.values["outputs"]
    return np.frombuffer(reply.blobs[0], np.float32).reshape(output["shape"])


async def main(folder: Path) -> dict[str, Any]:
    """A real model as TorchScript and as ONNX, and files that are none, or want more."""
    models, mine, secret, touched = (folder / name for name in ("models", f"{UPLOAD}mine", "secret", "touched"))
    models.mkdir()
    mine.mkdir()
    good = exported(models)
    secret.write_text("hunter2!")
    (mine / "garbage").write_bytes(b"")
    with zipfile.ZipFile(mine / "garbage", "w") as file:
        file.writestr("model/constants.pkl", b"cos\nsystem\n(S'touch it'\ntR.")
    config = {"config.txt": json.dumps({"imgsz": [64, 64]})}
    torch.jit.script(Reader(secret)).save(str(mine / "reader"), _extra_files=config)
    torch.jit.script(Writer(touched)).save(str(mine / "writer"), _extra_files=config)
    torch.jit.trace(torch.nn.Identity(), torch.zeros(1, 3, 64, 64)).save(str(mine / "silent"))

    processes = functools.partial(RunnerPool, readable=[models, mine])
    workshop = Workshop(processes, inspect_timeout_s=300)
    facts = await workshop.inspect(good, sha256(good), NONE)
    onnx = models / "converted.onnx"
    onnx.write_bytes(await workshop.convert((models / "yolo.pt").read_bytes()))
    async with RunnerPool("facetmesh.detection.program", readable=[models]) as pool:
        one, other = await raw(pool, good), await raw(pool, onnx)
    allowed = sorted(path.name for path in mine.iterdir())
    return {
        "task": facts.task, "size": [facts.height, facts.width], "labels": facts.labels[:2],
        "outputs": [list(output.shape) for output in facts.outputs],
        "difference": float(np.abs(one - other).max()),
        "refused": {name: await refused(workshop, mine / name) for name in allowed},
        "touched": touched.exists(),
    }


def sha256(path: Path) -> str:
    """Of a file, in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


json.dump(asyncio.run(main(Path(sys.argv[1]))), sys.stdout)
