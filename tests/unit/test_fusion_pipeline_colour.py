"""Colours: a face in other light comes back to its own, and grey stays grey."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from facetmesh.fusion.pipeline import colour, mask

from . import fusion_world as world


@pytest.fixture(scope="module")
def view() -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """The astronaut's face in Lab, its bare skin, its likeness to skin, and its eye distance."""
    face = world.astronauts_face()
    image = world.lab(world.astronaut())
    like = mask.likeness(image, face.flat)
    return image, mask.bare_skin(face.flat, like, like), like, face.unit


def test_an_image_in_its_own_light_stays_as_it_is(view: tuple[np.ndarray, np.ndarray, np.ndarray, float]) -> None:
    image, skin, like, unit = view
    matched = colour.match(image, image, skin, like, unit)
    assert world.delta_e(matched, image)[skin > 0].max() < 1


@pytest.mark.parametrize("shift", [(-25, 0, 0), (12, 0, 0), (0, 8, 14), (-15, 6, 10), (0, -4, -8)])
def test_other_light_is_undone(
    view: tuple[np.ndarray, np.ndarray, np.ndarray, float], shift: tuple[float, float, float]
) -> None:
    image, skin, like, unit = view
    lit = (image + np.array(shift, np.float32)).astype(np.float32)
    matched = colour.match(lit, image, skin, like, unit)
    before, after = (np.median(world.delta_e(one, image)[skin > 0]) for one in (lit, matched))
    assert before > 8
    assert after < 2.5


def test_a_shadow_on_one_side_is_taken_over(view: tuple[np.ndarray, np.ndarray, np.ndarray, float]) -> None:
    image, skin, like, unit = view
    shaded = image.copy()
    columns = np.flatnonzero(skin.any(axis=0))
    ramp = np.clip((np.arange(512) - columns[0]) / (columns[-1] - columns[0]), 0, 1) * 30
    shaded[..., 0] -= ramp.astype(np.float32)
    matched = colour.match(image, shaded, skin, like, unit)
    assert np.median(np.abs(matched[..., 0] - shaded[..., 0])[skin > 0]) < 2


def test_grey_stays_grey_when_the_skin_turns_orange(
    view: tuple[np.ndarray, np.ndarray, np.ndarray, float],
) -> None:
    image, skin, like, unit = view
    source = image.copy()
    teeth = (slice(135, 150), slice(205, 240))
    source[teeth] = (85, 0, 0)
    without = skin.copy()
    without[teeth] = 0
    warm = (image + np.array((0, 10, 20), np.float32)).astype(np.float32)
    matched = colour.match(source, warm, without, like * without, unit)
    assert np.abs(matched[teeth][..., 1:]).max() < 3
    assert np.median(matched[skin > 0][:, 2]) == pytest.approx(np.median(warm[skin > 0][:, 2]), abs=3)


@pytest.mark.parametrize("grey", ["source", "target"])
def test_with_a_black_and_white_photo_all_takes_the_colour_of_the_targets_skin(
    view: tuple[np.ndarray, np.ndarray, np.ndarray, float], grey: str
) -> None:
    image, skin, like, unit = view
    without = image * np.array((1, 0, 0), np.float32)
    source, target = (without, image) if grey == "source" else (image, without)
    matched = colour.match(source, target, skin, like, unit)
    skins = np.median(target[skin > 0][:, 1:], axis=0)
    lips = (slice(135, 160), slice(200, 245))
    assert np.abs(matched[lips][..., 1:] - skins).max() < 6
    assert np.abs(matched[skin > 0][:, 1:].mean(axis=0) - target[skin > 0][:, 1:].mean(axis=0)).max() < 1
    assert np.median(np.abs(matched[..., 0] - image[..., 0])[skin > 0]) < 1


def test_sharpness_and_grain_become_the_targets(view: tuple[np.ndarray, np.ndarray, np.ndarray, float]) -> None:
    image, skin, like, unit = view
    soft = np.asarray(cv2.GaussianBlur(image, (0, 0), 2), np.float32)
    grainy = image.copy()
    grainy[..., 0] += np.random.default_rng(1).normal(0, 3, image.shape[:2]).astype(np.float32)

    def fineness(one: np.ndarray) -> float:
        fine = one[..., 0] - cv2.GaussianBlur(one[..., 0], (0, 0), colour.GRAIN_SCALE_PX)
        return float(fine[skin > 0].std())

    assert fineness(colour.match(image, soft, skin, like, unit)) < 0.6 * fineness(image)
    assert fineness(colour.match(soft, grainy, skin, like, unit)) == pytest.approx(fineness(grainy), rel=0.35)


def test_pale_highlights_take_the_colour_of_orange_skin(
    view: tuple[np.ndarray, np.ndarray, np.ndarray, float],
) -> None:
    image, skin, like, unit = view
    rows, columns = np.nonzero(skin)
    spot = (slice(rows[len(rows) // 2] - 2, rows[len(rows) // 2] + 3), slice(columns.min() + 8, columns.min() + 14))
    source = image.copy()
    source[spot] = (92, 1, 3)
    orange = (image + np.array((0, 16, 28), np.float32)).astype(np.float32)
    matched = colour.match(source, orange, skin, like, unit)
    assert np.hypot(*matched[spot][..., 1:].reshape(-1, 2).mean(axis=0)) > 20


def test_no_colour_glows(view: tuple[np.ndarray, np.ndarray, np.ndarray, float]) -> None:
    image, skin, like, unit = view
    glowing = image.copy()
    lips = (slice(152, 156), slice(210, 235))
    glowing[lips] = (50, 70, 60)
    matched = colour.match(glowing, image, skin, like, unit)
    around = np.hypot(*np.median(image[skin > 0], axis=0)[1:])
    assert np.hypot(matched[lips][..., 1], matched[lips][..., 2]).max() < 2.3 * around
