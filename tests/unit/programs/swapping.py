"""Run with an interpreter that has InsightFace: what comes of faces by stand-ins for its weights, as JSON.

The argument is a folder to work in. The stand-ins are ONNX files with the inputs and outputs of det_10g, w600k_r50,
genderage and inswapper_128. The first sees three faces, at the same places of whatever picture; the second tells faces
by what they look like, small; the third takes all for men, and the brighter for the older; the fourth gives the
target's face a colour that depends on the source's embedding.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from facetmesh.fusion.backends import Backend
from facetmesh.fusion.faces import Face
from facetmesh.fusion.fuser import Fuser
from facetmesh.fusion.matcher import Matcher
from facetmesh.fusion.pipeline import landmarks, mesh
from facetmesh.fusion.pipeline.rendering import Rendering
from facetmesh.fusion.pipeline.warp import similarity
from facetmesh.fusion.weights import (
    DETECTOR,
    GUESSER,
    GUESSING,
    MATCHING,
    RECOGNIZER,
    SWAPPER,
    SWAPPING,
    CatalogWeights,
    InsightFaceWeights,
)
from facetmesh.kit import catalog
from facetmesh.kit.errors import FacetmeshError
from facetmesh.runners.engines import open_model
from facetmesh.runners.images import decode, encode_png
from facetmesh.runners.pool import RunnerPool
from facetmesh.runners.settings import EngineSetting

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping, Sequence

SIDE, STRIDE = 640, 16
ASTRONAUT, SMILES, LAUGHS = (173, 83, 274, 180), (455, 306, 572, 412), (739, 379, 848, 474)
PROFILE = (899, 83, 1024, 198)
PLAIN = Rendering(colour=False, occlusion=False)
Array = np.ndarray[Any, Any]


def saved(
    path: Path, nodes: Sequence[onnx.NodeProto], inputs: Mapping[str, Sequence[int]],
    outputs: Mapping[str, Sequence[int]], constants: Mapping[str, Array],
) -> None:  # fmt: skip
    """Writes a model."""
    described = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)) for name, shape in ports.items()]
        for ports in (inputs, outputs)
    ]
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(list(nodes), "stand-in", *described, initializers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6), path)


def detector(path: Path, faces: Sequence[tuple[Array, Array]]) -> None:
    """One that sees faces, by box and five points in its own input, as SCRFD does: three strides, two anchors each."""
    constants: dict[str, Array] = {"zero": np.zeros((1,), np.float32)}
    for stride in (8, STRIDE, 32):
        count = (SIDE // stride) ** 2 * 2
        scores, boxes, points = (np.zeros((count, width), np.float32) for width in (1, 4, 10))
        for box, kps in faces if stride == STRIDE else ():
            column, row = (int(value) for value in (box[:2] + box[2:]) / 2 // STRIDE)
            index, centre = (row * (SIDE // STRIDE) + column) * 2, np.array([column, row], np.float32) * STRIDE
            scores[index] = 0.9
            boxes[index] = np.concatenate([centre - box[:2], box[2:] - centre]) / STRIDE
            points[index] = ((kps - centre) / STRIDE).ravel()
        constants |= {f"score_{stride}": scores, f"bbox_{stride}": boxes, f"kps_{stride}": points}
    names = [f"{kind}_{stride}" for kind in ("score", "bbox", "kps") for stride in (8, STRIDE, 32)]
    nodes = [
        helper.make_node("ReduceMean", ["input.1"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        *(helper.make_node("Add", [name, "nothing"], [f"{name}_out"]) for name in names),
    ]
    outputs = {f"{name}_out": constants[name].shape for name in names}
    saved(path, nodes, {"input.1": (1, 3, SIDE, SIDE)}, outputs, constants)


def recognizer(path: Path) -> None:
    """One whose embedding is a picture of 14 by 14 pixels, turned at random, as ArcFace's are taken."""
    turned = np.random.default_rng(0).normal(size=(588, 512)).astype(np.float32)
    nodes = [
        helper.make_node("AveragePool", ["input.1"], ["small"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Flatten", ["small"], ["flat"]),
        helper.make_node("ReduceMean", ["flat"], ["mean"], axes=[1]),
        helper.make_node("Sub", ["flat", "mean"], ["centred"]),
        helper.make_node("MatMul", ["centred", "turned"], ["683"]),
    ]
    saved(path, nodes, {"input.1": (1, 3, 112, 112)}, {"683": (1, 512)}, {"turned": turned})


def guesser(path: Path) -> None:
    """One that takes all for men, as old as they are bright: 255 is 100 years."""
    nodes = [
        helper.make_node("Identity", ["data"], ["bn_data"], name="bn_data"),  # takes pixels as they are
        helper.make_node("ReduceMean", ["bn_data"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Reshape", ["mean", "column"], ["one"]),
        helper.make_node("Mul", ["one", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "man"], ["fc1"]),
    ]
    constants = {
        "column": np.array([1, 1], np.int64), "scale": np.array([[0, 0, 1 / 255]], np.float32),
        "man": np.array([[0, 1, 0]], np.float32),
    }  # fmt: skip
    saved(path, nodes, {"data": (1, 3, 96, 96)}, {"fc1": (1, 3)}, constants)


def swapper(path: Path) -> None:
    """One that colours a face by who the source is."""
    random = np.random.default_rng(1)
    nodes = [
        helper.make_node("MatMul", ["source", "palette"], ["signs"]),
        helper.make_node("Sigmoid", ["signs"], ["flat"]),
        helper.make_node("Reshape", ["flat", "shape"], ["colour"]),
        helper.make_node("Mul", ["colour", "less"], ["tint"]),
        helper.make_node("Mul", ["target", "most"], ["faded"]),
        helper.make_node("Add", ["faded", "tint"], ["output"]),
    ]
    constants = {
        "palette": (random.normal(size=(512, 3)) * 4).astype(np.float32), "shape": np.array([1, 3, 1, 1], np.int64),
        "less": np.array(0.4, np.float32), "most": np.array(0.6, np.float32),
        "emap": np.eye(512, dtype=np.float32),  # InsightFace takes the last one for the map of embeddings
    }  # fmt: skip
    shapes = {"target": (1, 3, 128, 128), "source": (1, 512)}
    saved(path, nodes, shapes, {"output": (1, 3, 128, 128)}, constants)


def five(pixels: Array, box: tuple[int, int, int, int]) -> Array:
    """Eyes, nose and the mouth's corners."""
    model = open_model(catalog.fetch("facemesh"), EngineSetting())
    points = landmarks.find(model, pixels, landmarks.Box(*box)).flat
    return np.concatenate([np.stack(mesh.eye_centres(points)), points[[1, 61, 291]]]).astype(np.float32)


def brightness(pixels: Array, box: tuple[int, int, int, int]) -> float:
    """The mean of what the guesser sees of a face: half as much again as its box, 0 to 1."""
    x_min, y_min, x_max, y_max = box
    x, y, reach = (x_min + x_max) / 2, (y_min + y_max) / 2, max(x_max - x_min, y_max - y_min) * 0.75
    part = pixels[int(y - reach) : int(y + reach), int(x - reach) : int(x + reach)]
    return float(part.mean()) / 255


async def refusal(call: Awaitable[Any]) -> str:
    """Why a call is refused."""
    try:
        await call
    except FacetmeshError as error:
        return error.reason
    return ""


async def main(folder: Path) -> dict[str, Any]:
    """Fuses and compares with the stand-ins, and with files that are none."""
    files = {name: catalog.fetch(f"photo-{name}").read_bytes() for name in ("astronaut", "six-faces")}
    astronaut, group = (decode(file) for file in files.values())
    kps = {box: five(pixels, box) for pixels, box in ((astronaut, ASTRONAUT), (group, SMILES), (group, LAUGHS))}
    scales = {ASTRONAUT: SIDE / 512, SMILES: SIDE / 1280, LAUGHS: SIDE / 1280}
    models = folder / "models"
    (models / DETECTOR).parent.mkdir(parents=True)
    detector(models / DETECTOR, [(np.array(box) * scales[box], kps[box] * scales[box]) for box in kps])
    recognizer(models / RECOGNIZER)
    guesser(models / GUESSER)
    swapper(models / SWAPPER)
    # Whoever laughs in the group, where the astronaut's face is: so that the detector sees it.
    onto = similarity(kps[LAUGHS], kps[ASTRONAUT])
    laughing = encode_png(np.asarray(cv2.warpAffine(group, onto, (512, 512)), np.uint8))

    weights, landmark_file = InsightFaceWeights(models, SWAPPING), CatalogWeights()
    async with RunnerPool("facetmesh.fusion.program", readable=[catalog.models_folder(), folder]) as pool:
        fuser = Fuser(pool, lambda: [*landmark_file.files(), *weights.files()], Backend.INSIGHTFACE)
        matching, guessing = (InsightFaceWeights(models, names).files for names in (MATCHING, GUESSING))
        matcher = Matcher(pool, matching, guessing)

        async def fused(source: bytes, target_box: tuple[int, int, int, int] = SMILES) -> Any:
            return await fuser.fuse(
                "acme", "swap", source, Face(ASTRONAUT), files["six-faces"], [Face(target_box)], PLAIN
            )

        one, other = await fused(files["astronaut"]), await fused(laughing)
        (folder / "one.png").write_bytes(one.image)
        (folder / "other.png").write_bytes(other.image)
        changed = (decode(one.image) != group).any(axis=2)
        rows, columns = np.nonzero(changed)
        difference = np.abs(decode(one.image).astype(int) - decode(other.image))[changed].mean()
        told = await matcher.similarities(
            "acme", "tell", laughing, files["six-faces"], [Face(SMILES), Face(LAUGHS), Face(PROFILE)]
        )
        guesses = await matcher.guesses(
            "acme", "guess", files["six-faces"], [Face(SMILES), Face(LAUGHS), Face(PROFILE)]
        )
        unseen = await refusal(fused(files["astronaut"], PROFILE))
        (models / RECOGNIZER).write_bytes(b"no model")
        broken = await refusal(fused(files["astronaut"]))
        (models / SWAPPER).unlink()
        missing = await refusal(fused(files["astronaut"]))
    return {
        "models": [[model.name, model.licence] for model in one.models],
        "changed": int(changed.sum()), "box": [int(edges) for edges in (
            columns.min(), rows.min(), columns.max(), rows.max(),
        )],
        "difference": float(difference), "similarities": told,
        "guesses": [guess and [guess.sex, guess.age] for guess in guesses],
        "brightness": [brightness(group, box) for box in (SMILES, LAUGHS)],
        "unseen": unseen, "broken": broken, "missing": missing,
    }  # fmt: skip


json.dump(asyncio.run(main(Path(sys.argv[1]))), sys.stdout)
