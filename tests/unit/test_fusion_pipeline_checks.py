"""Covered and drawn faces are refused, whatever the cloth's colour; no light or file makes a face look so."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from facetmesh.fusion.pipeline import checks, landmarks
from facetmesh.kit.errors import InvalidArgument
from facetmesh.runners.images import decode, encode_jpeg

from . import fusion_world as world

FACES = {
    "astronaut": ("photo-astronaut", world.ASTRONAUT),
    "looks down": ("photo-six-faces", world.LOOKS_DOWN),
    "smiles": ("photo-six-faces", world.SMILES),
    "laughs": ("photo-six-faces", world.LAUGHS),
}


def reason(image: np.ndarray, face: landmarks.Face) -> str:
    try:
        checks.check(image, face, "target")
    except InvalidArgument as refusal:
        return refusal.reason
    return ""


def test_a_refusal_names_the_image() -> None:
    face = world.astronauts_face()
    with pytest.raises(InvalidArgument, match="source") as refusal:
        checks.check(masked(world.astronaut(), face, (232, 232, 234)), face, "source")
    assert refusal.value.metadata == {"image": "source"}


def masked(image: np.ndarray, face: landmarks.Face, cloth: tuple[int, int, int]) -> np.ndarray:
    """The face with a mask with folds over nose, mouth and chin."""
    outline = face.flat[[195, 118, 123, 58, 172, 150, 176, 152, 400, 379, 397, 288, 352, 347]]
    over = np.zeros(image.shape[:2], np.uint8)
    cv2.fillPoly(over, [np.rint(outline).astype(np.int32)], 255, cv2.LINE_AA)
    rows = np.arange(image.shape[0])[:, np.newaxis, np.newaxis]
    folds = np.array(cloth) * (1 - 0.12 * (rows % 12 < 2))
    share = over[..., np.newaxis] / 255
    return np.asarray(image * (1 - share) + folds * share, np.uint8)


def cartoon(image: np.ndarray, face: landmarks.Face, colours: int) -> np.ndarray:
    """The face in a few flat colours."""
    box = face.box
    x_min, y_min, x_max, y_max = (int(edge) for edge in (box.x_min, box.y_min, box.x_max, box.y_max))
    part = cv2.pyrMeanShiftFiltering(np.ascontiguousarray(image[y_min:y_max, x_min:x_max]), 8, 20)
    cv2.setRNGSeed(7)
    criteria = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 20, 1.0)
    pixels = part.reshape(-1, 3).astype(np.float32)
    _, labels, centres = cv2.kmeans(pixels, colours, None, criteria, 2, cv2.KMEANS_PP_CENTERS)  # type: ignore[call-overload]
    made = image.copy()
    made[y_min:y_max, x_min:x_max] = centres[labels.ravel()].reshape(part.shape)
    return made


@pytest.mark.parametrize("cloth", [(150, 190, 210), (232, 232, 234), (38, 36, 38), (70, 160, 130)])
@pytest.mark.parametrize("who", FACES)
def test_a_mask_over_the_mouth_is_seen(who: str, cloth: tuple[int, int, int]) -> None:
    photo, box = FACES[who]
    face = world.face(photo, box)
    assert reason(masked(world.photo(photo), face, cloth), face) == "FACE_COVERED"


@pytest.mark.parametrize("colour", [(0, 0, 0), (30, 30, 30), (128, 128, 128), (240, 240, 240)])
@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("who", FACES)
def test_what_hides_half_of_a_face_is_seen(who: str, side: int, colour: tuple[int, int, int]) -> None:
    photo, box = FACES[who]
    face = world.face(photo, box)
    image = world.photo(photo).copy()
    nose = round(float(face.flat[4, 0]))
    image[:, slice(None, nose) if side == 0 else slice(nose, None)] = colour
    assert reason(image, face) == "FACE_COVERED"


@pytest.mark.parametrize("left", [0.15, 1.0])
def test_a_side_in_shadow_is_not_hidden(left: float) -> None:
    face = world.astronauts_face()
    x_min, x_max = face.flat[:, 0].min(), face.flat[:, 0].max()
    across = np.clip((np.arange(world.astronaut().shape[1]) - x_min) / (x_max - x_min), 0, 1)
    light = (left + (1.15 - 2 * left) * across)[np.newaxis, :, np.newaxis]  # of 0.15 on one side to 1 on the other
    linear = (world.astronaut() / 255) ** 2.2 * light
    assert reason(np.asarray(linear ** (1 / 2.2) * 255, np.uint8), face) == ""


@pytest.mark.parametrize("cloth", [(232, 232, 234), (38, 36, 38)])
def test_it_is_seen_in_a_black_and_white_photo_too(cloth: tuple[int, int, int]) -> None:
    face = world.face("photo-six-faces", world.SMILES)
    grey = cv2.cvtColor(cv2.cvtColor(world.group(), cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    assert reason(np.asarray(grey), face) == ""
    assert reason(masked(grey, face, cloth), face) == "FACE_COVERED"


@pytest.mark.parametrize("colours", [5, 8])
@pytest.mark.parametrize("who", FACES)
def test_a_cartoon_is_seen(who: str, colours: int) -> None:
    photo, box = FACES[who]
    face = world.face(photo, box)
    assert reason(cartoon(world.photo(photo), face, colours), face) == "FACE_DRAWN"


def test_a_drawing_from_scratch_is_seen() -> None:
    image, middle = np.full((512, 512, 3), (200, 220, 255), np.uint8), 256

    def ellipse(at: tuple[int, int], axes: tuple[int, int], colour: tuple[int, int, int], width: int = -1) -> None:
        cv2.ellipse(image, at, axes, 0, 0, 360, colour, width, cv2.LINE_AA)

    ellipse((middle, 226), (170, 190), (60, 40, 30))
    ellipse((middle, 256), (130, 170), (240, 200, 170))
    for x in (204, 308):
        ellipse((x, 236), (26, 15), (255, 255, 255))
        ellipse((x, 236), (26, 15), (30, 20, 20), 3)
        ellipse((x, 236), (10, 10), (80, 50, 30))
        cv2.ellipse(image, (x, 214), (34, 12), 0, 190, 350, (60, 40, 30), 7, cv2.LINE_AA)
    cv2.ellipse(image, (middle, 301), (18, 9), 0, 0, 180, (190, 140, 110), 3, cv2.LINE_AA)
    cv2.ellipse(image, (middle, 344), (48, 20), 0, 0, 180, (190, 60, 60), -1, cv2.LINE_AA)
    face = landmarks.find(world.facemesh(), image, landmarks.Box(125, 85, 390, 430))
    assert reason(image, face) == "FACE_DRAWN"


@pytest.mark.parametrize("who", FACES)
@pytest.mark.parametrize("quality", [None, 60, 15])
def test_photos_pass_however_they_were_saved(who: str, quality: int | None) -> None:
    photo, box = FACES[who]
    image = world.photo(photo) if quality is None else decode(encode_jpeg(world.photo(photo), quality))
    assert reason(image, world.face(photo, box)) == ""


@pytest.mark.parametrize("who", FACES)
def test_a_smoothed_or_blurred_face_passes(who: str) -> None:
    photo, box = FACES[who]
    face = world.face(photo, box)
    assert reason(np.asarray(cv2.bilateralFilter(world.photo(photo), 9, 30, 9)), face) == ""
    assert reason(np.asarray(cv2.GaussianBlur(world.photo(photo), (0, 0), 2)), face) == ""


@pytest.mark.parametrize("light", [(0.15, 0.15, 0.15), (1.0, 0.8, 0.6), (0.7, 0.85, 1.0)])
def test_no_light_makes_a_face_look_covered_or_drawn(light: tuple[float, float, float]) -> None:
    """Nor does a shadow over half of it."""
    lit = (world.astronaut() * np.array(light)).astype(np.uint8)
    assert reason(lit, world.astronauts_face()) == ""
    lit[:, :224] //= 3
    assert reason(lit, world.astronauts_face()) == ""
