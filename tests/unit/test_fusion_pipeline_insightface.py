"""Fusion by InsightFace's models: what becomes of what they draw, and the real library over stand-ins for its weights.

Those of inswapper and buffalo_l may not be passed on. What else is needed is in an environment of its own: `make
insightface-env`.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

import facetmesh
from facetmesh.fusion.pipeline import mesh
from facetmesh.fusion.pipeline.backends import Sought
from facetmesh.fusion.pipeline.insightface import FaceAnalysis
from facetmesh.fusion.pipeline.landmarks import Box
from facetmesh.fusion.pipeline.rendering import Mask, Rendering
from facetmesh.fusion.pipeline.swapping import InsightFaceBackend, guesses, nearest, similarities
from facetmesh.fusion.pipeline.warp import similarity
from facetmesh.kit import catalog
from facetmesh.kit.errors import FailedPrecondition, InvalidArgument
from facetmesh.runners.settings import EngineSetting

from . import fusion_world as world

if TYPE_CHECKING:
    from collections.abc import Sequence

PYTHON = catalog.cache_folder() / "insightface-env" / "bin" / "python"
SERVICES = Path(facetmesh.__file__).parents[1]
PROGRAM = Path(__file__).with_name("programs") / "swapping.py"
CROP = np.array([[46.3, 51.7], [81.5, 51.5], [64.0, 71.7], [49.5, 92.4], [78.7, 92.2]], np.float32)
"""Where INSwapper has eyes, nose and mouth, in 128 pixels."""
Array = np.ndarray[Any, Any]


class Scripted:
    """Finds the faces that it is told of, and draws what is there, in another colour."""

    def __init__(self, *faces: Any, colour: tuple[float, float, float] = (1, 1, 1)) -> None:
        """Knows what to see."""
        self.faces = faces
        self.colour = colour
        self.detected: list[Array] = []

    def detect(self, image: Array) -> Sequence[Any]:
        """The faces."""
        self.detected.append(image)
        return self.faces

    def embedding(self, image: Array, face: Any) -> Array:
        """Who a face is."""
        del image
        return np.asarray(face.who, np.float32)

    def draw(self, image: Array, face: Any, identity: Any) -> tuple[Array, Array]:
        """The face."""
        del identity
        matrix = similarity(face.kps, CROP)
        crop = cv2.warpAffine(image, matrix, (128, 128), flags=cv2.INTER_CUBIC)
        return np.rint(crop * np.array(self.colour)).astype(np.uint8), matrix.astype(np.float32)


def seen(points: Array, who: tuple[float, float] = (1, 0)) -> Any:
    """A face as InsightFace has it."""
    kps = np.concatenate([np.stack(mesh.eye_centres(points)), points[[1, 61, 291]]])
    return SimpleNamespace(bbox=np.concatenate([points.min(axis=0), points.max(axis=0)]), kps=kps, who=who)


def fused(pixels: Array, points: Array, rendering: Rendering, **drawing: Any) -> Array:
    """A photo whose face was drawn anew."""
    scripted = Scripted(seen(points), **drawing)
    backend = InsightFaceBackend(world.facemesh(), scripted, scripted)
    face = backend.find(pixels, Sought(world.box_around(points), None), "target")
    return backend.fuse(pixels, face, pixels, face, rendering)


@pytest.mark.parametrize("degrees", [0, 35])
@pytest.mark.parametrize("scale", [0.5, 1.0, 2.5])
def test_what_is_drawn_lies_where_it_belongs(degrees: float, scale: float) -> None:
    photo = world.turned(world.astronaut(), degrees, scale)
    points = photo.moved(world.astronauts_face().points)
    same = fused(photo.pixels, points, Rendering(colour=False, occlusion=False))
    red = fused(photo.pixels, points, Rendering(colour=False, occlusion=False), colour=(1, 0.7, 0.7))
    changed = (red != photo.pixels).any(axis=2)
    middle = points[[1, 4, 5, 195]].mean(axis=0).astype(int)
    assert changed[middle[1], middle[0]]
    rows, columns = np.nonzero(changed)
    low, high = points.min(axis=0), points.max(axis=0)
    margin = 0.2 * (high - low).max()
    assert (low - margin <= (columns.min(), rows.min())).all()
    assert (high + margin >= (columns.max(), rows.max())).all()
    # Drawn as it was, it is what it was, but for what 128 pixels cannot show.
    step = np.abs(same.astype(int) - photo.pixels)[changed].mean()
    assert step < 4
    assert step < np.abs(red.astype(int) - photo.pixels)[changed].mean() / 2


def test_a_mask_and_a_weight_are_kept() -> None:
    points = world.astronauts_face().flat
    how = {"colour": False, "occlusion": False}
    whole, hull, half = (
        np.abs(fused(world.astronaut(), points, rendering, colour=(1, 0.7, 0.7)).astype(int) - world.astronaut())
        for rendering in (Rendering(**how), Rendering(Mask.HULL, **how), Rendering(weight=0.5, **how))
    )  # fmt: skip
    assert (whole > 0).sum() < (hull > 0).sum()
    assert 0.35 < half.sum() / whole.sum() < 0.65


def test_a_face_that_insightface_does_not_see_is_refused() -> None:
    scripted = Scripted(seen(world.face("photo-six-faces", world.SMILES).flat))
    backend = InsightFaceBackend(world.facemesh(), scripted, scripted)
    backend.find(world.group(), Sought(world.SMILES, None), "target")
    with pytest.raises(InvalidArgument) as refusal:
        backend.find(world.group(), Sought(world.LAUGHS, None), "target")
    assert (refusal.value.reason, refusal.value.metadata) == ("FACE_NOT_CLEAR", {"image": "target"})
    assert len(scripted.detected) == 1  # a picture is looked at once, for however many faces


def test_a_face_that_no_backend_fuses_is_refused_by_this_one_too() -> None:
    box = np.array([world.PROFILE.x_min, world.PROFILE.y_min, world.PROFILE.x_max, world.PROFILE.y_max])
    kps = np.array([[950, 130], [990, 130], [970, 150], [955, 170], [985, 170]], np.float32)
    scripted = Scripted(SimpleNamespace(bbox=box, kps=kps))
    with pytest.raises(InvalidArgument) as refusal:
        InsightFaceBackend(world.facemesh(), scripted, scripted).find(
            world.group(), Sought(world.PROFILE, None), "target"
        )
    assert refusal.value.reason in {"FACE_PROFILE", "FACE_NOT_CLEAR"}


def test_similarities_are_of_the_largest_face_of_the_reference() -> None:
    small, large = (SimpleNamespace(bbox=np.array(box), who=who) for box, who in (
        ([0, 0, 10, 10], (1, 0)), ([20, 0, 60, 50], (0.6, 0.8)),
    ))  # fmt: skip
    pixels = np.zeros((64, 64, 3), np.uint8)
    boxes = [Box(0, 0, 10, 10), Box(20, 0, 60, 50), Box(0, 40, 10, 50)]
    assert similarities(Scripted(small, large), pixels, pixels, boxes) == [
        pytest.approx(0.6), pytest.approx(1.0), None
    ]  # fmt: skip
    with pytest.raises(InvalidArgument) as refusal:
        similarities(Scripted(), pixels, pixels, boxes)
    assert (refusal.value.reason, refusal.value.metadata["image"]) == ("NO_FACE", "reference")


def test_what_is_no_face_is_not_guessed_at() -> None:
    face = SimpleNamespace(bbox=np.array([0, 0, 10, 10]), taken_for=("female", 30))
    guesser = SimpleNamespace(guess=lambda _, seen: seen.taken_for)
    pixels = np.zeros((64, 64, 3), np.uint8)
    assert guesses(Scripted(face), guesser, pixels, [Box(40, 40, 60, 60), Box(0, 0, 10, 11)]) == [None, ["female", 30]]


def test_hostile_boxes_are_of_no_face() -> None:
    face = SimpleNamespace(bbox=np.array([0, 0, 10, 10]))
    for box in (Box(-1e9, -1e9, 1e9, 1e9), Box(50, 50, -50, -50), Box(0, 0, 0, 0)):
        assert nearest([face], box) is None
    assert nearest([], Box(0, 0, 10, 10)) is None
    assert nearest([face], Box(1, 1, 11, 11)) is face


def test_a_file_that_has_changed_is_not_opened(tmp_path: Path) -> None:
    file = {"path": str(tmp_path / "det_10g.onnx"), "sha256": "0" * 64}
    for content, reason in ((None, "MODEL_UNREADABLE"), (b"another", "MODEL_CHANGED")):
        if content is not None:
            (tmp_path / "det_10g.onnx").write_bytes(content)
        with pytest.raises(FailedPrecondition) as refusal:
            FaceAnalysis(file, file, EngineSetting())
        assert refusal.value.reason == reason


@pytest.mark.full
@pytest.mark.skipif(not PYTHON.exists(), reason="`make insightface-env` makes the environment that this needs")
def test_the_real_library_over_stand_ins_for_its_weights(tmp_path: Path) -> None:
    """In runners, confined: FaceAnalysis, INSwapper, and what both refuse."""
    done = subprocess.run(
        [str(PYTHON), str(PROGRAM), str(tmp_path)], env={**os.environ, "PYTHONPATH": str(SERVICES)},
        capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    licence = "LicenseRef-insightface-non-commercial"
    assert told["models"] == [
        ["facemesh", "Apache-2.0"], ["buffalo_l/det_10g.onnx", licence], ["buffalo_l/w600k_r50.onnx", licence],
        ["inswapper_128.onnx", licence],
    ]  # fmt: skip
    x_min, y_min, x_max, y_max = told["box"]
    box = world.SMILES
    assert told["changed"] > 5000
    assert box.x_min - 25 < x_min < x_max < box.x_max + 25
    assert box.y_min - 25 < y_min < y_max < box.y_max + 25
    assert told["difference"] > 5  # two sources, two faces
    smiles, laughs, profile = told["similarities"]
    assert laughs > 0.9
    assert smiles < 0.8
    assert profile is None
    ages = [round(100 * brightness) for brightness in told["brightness"]]
    assert [guess and guess[0] for guess in told["guesses"]] == ["male", "male", None]
    assert [guess[1] for guess in told["guesses"][:2]] == pytest.approx(ages, abs=3)
    assert (told["unseen"], told["broken"], told["missing"]) == (
        "FACE_NOT_CLEAR", "MODEL_UNREADABLE", "WEIGHTS_MISSING"
    )  # fmt: skip
