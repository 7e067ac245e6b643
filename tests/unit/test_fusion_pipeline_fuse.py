"""The whole pipeline on real photos: what the eye would see, in numbers."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from facetmesh.fusion.pipeline import fuse as fusing
from facetmesh.fusion.pipeline import landmarks, mask, mesh
from facetmesh.fusion.pipeline.rendering import Mask, Rendering

from . import fusion_world as world

TARGETS = [world.LOOKS_DOWN, world.SMILES, world.LAUGHS]


def fused(box: landmarks.Box) -> np.ndarray:
    target = world.face("photo-six-faces", box)
    return fusing.fuse(world.astronaut(), world.astronauts_face(), world.group(), target)


@pytest.mark.parametrize("box", TARGETS)
def test_all_but_the_face_is_the_target_byte_for_byte(box: landmarks.Box) -> None:
    result = fused(box)
    target = world.face("photo-six-faces", box)
    changed = (result != world.group()).any(axis=2)
    assert changed.sum() > 1000
    inside = mask.extent(target.flat, changed.shape) > 0
    assert not (changed & ~inside).any()


@pytest.mark.parametrize("box", TARGETS)
def test_the_fused_face_has_the_targets_geometry(box: landmarks.Box) -> None:
    target = world.face("photo-six-faces", box)
    found = landmarks.find(world.facemesh(), fused(box), box)
    error = np.linalg.norm(found.flat - target.flat, axis=1) / target.unit
    assert np.median(error) < 0.045


@pytest.mark.parametrize("box", TARGETS)
def test_there_is_no_seam(box: landmarks.Box) -> None:
    """Along the mask's edge the result differs from the target by no more than the eye forgives."""
    target = world.face("photo-six-faces", box)
    extent = mask.extent(target.flat, world.group().shape[:2])
    edge = (extent > 0.02) & (extent < 0.25)
    difference = world.delta_e(world.lab(fused(box)), world.lab(world.group()))[edge]
    assert np.median(difference) < 2.5
    assert np.quantile(difference, 0.95) < 9


@pytest.mark.parametrize("box", TARGETS)
def test_the_skin_has_the_targets_colour_and_no_burnt_highlights(box: landmarks.Box) -> None:
    target = world.face("photo-six-faces", box)
    result, before = world.lab(fused(box)), world.lab(world.group())
    like = mask.likeness(before, target.flat)
    skin = mask.bare_skin(target.flat, like, like) * mask.extent(target.flat, like.shape) > 0.9
    assert np.linalg.norm(np.median(result[skin], axis=0) - np.median(before[skin], axis=0)) < 5
    assert (result[skin][:, 0] > 99).mean() < 0.02


def test_it_is_the_sources_face() -> None:
    """The features correlate with the source's, and not with those that were there."""
    result = fused(world.LOOKS_DOWN)
    target, source = world.face("photo-six-faces", world.LOOKS_DOWN), world.astronauts_face()

    def features(image: np.ndarray, face: landmarks.Face) -> np.ndarray:
        patches = []
        for outline in (mesh.RIGHT_EYE, mesh.LEFT_EYE, mesh.LIPS):
            middle = face.flat[list(outline)].mean(axis=0)
            scale = 48 / face.unit
            turn = cv2.getRotationMatrix2D(middle.tolist(), np.degrees(face.roll_rad), scale)
            turn = turn + np.array([[0, 0, 16 - middle[0]], [0, 0, 16 - middle[1]]])
            grey = cv2.cvtColor(cv2.warpAffine(image, turn, (32, 32)), cv2.COLOR_RGB2GRAY).astype(np.float64)
            patches.append((grey - grey.mean()).ravel() / grey.std())
        return np.concatenate(patches)

    made, before = features(result, target), features(world.group(), target)
    wanted = features(world.astronaut(), source)
    assert np.mean(made * wanted) > np.mean(made * before) + 0.2


def test_a_face_into_itself_changes_next_to_nothing() -> None:
    face = world.astronauts_face()
    result = fusing.fuse(world.astronaut(), face, world.astronaut(), face)
    assert np.abs(result.astype(int) - world.astronaut()).mean() < 0.2
    assert np.quantile(world.delta_e(world.lab(result), world.lab(world.astronaut())), 0.999) < 3


def test_an_open_mouth_keeps_its_teeth_when_the_source_has_none_to_show() -> None:
    target, source = world.astronauts_face(), world.face("photo-six-faces", world.LOOKS_DOWN)
    result = fusing.fuse(world.group(), source, world.astronaut(), target)
    hole = mask.opening(target.flat, mesh.MOUTH, (512, 512)) > 0.95
    assert hole.sum() > 20
    assert np.abs(result[hole].astype(int) - world.astronaut()[hole]).max() < 30


def test_a_large_face_is_worked_on_smaller_and_comes_out_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = fused(world.SMILES)
    monkeypatch.setattr(fusing, "MAX_UNIT_PX", 25.0)
    small = fused(world.SMILES)
    changed = (small != world.group()).any(axis=2)
    assert changed.sum() > 1000
    assert np.median(world.delta_e(world.lab(small), world.lab(plain))[changed]) < 6


def test_a_face_at_the_edge_of_the_photo_is_no_problem() -> None:
    target = world.face("photo-six-faces", world.LOOKS_DOWN)
    x = int(target.flat[:, 0].min()) - 2
    cut = np.ascontiguousarray(world.group()[:, x:])
    moved = landmarks.Face(target.points - np.array([x, 0, 0], np.float32), target.score)
    result = fusing.fuse(world.astronaut(), world.astronauts_face(), cut, moved)
    assert result.shape == cut.shape
    assert (result != cut).any()


def test_half_a_weight_is_half_way() -> None:
    target = world.face("photo-six-faces", world.SMILES)
    before, whole = world.group().astype(int), fused(world.SMILES).astype(int)
    half = fusing.fuse(world.astronaut(), world.astronauts_face(), world.group(), target, Rendering(weight=0.5))
    assert np.quantile(np.abs(half - (before + whole) / 2)[whole != before], 0.99) <= 2  # but where it is clipped


def test_colours_may_stay_the_sources() -> None:
    target, source = world.face("photo-six-faces", world.SMILES), world.astronauts_face()
    kept = fusing.fuse(world.astronaut(), source, world.group(), target, Rendering(colour=False))
    cheek, whence = (np.rint(face.flat[50]).astype(int) for face in (target, source))

    def colour(image: np.ndarray, at: np.ndarray) -> np.ndarray:
        return np.asarray(world.lab(image)[at[1] - 4 : at[1] + 5, at[0] - 4 : at[0] + 5].mean(axis=(0, 1)))

    wanted = colour(world.astronaut(), whence)
    distances = [np.linalg.norm(colour(image, cheek) - wanted) for image in (kept, fused(world.SMILES))]
    assert distances[0] < distances[1] / 2


def test_what_covers_the_target_stays_unless_it_is_said() -> None:
    """A bar before the face's side."""
    target = world.face("photo-six-faces", world.SMILES)
    x = int(target.flat[234, 0]) + 4
    barred = world.group().copy()
    barred[:, x : x + 8] = (20, 90, 20)
    rows = slice(int(target.flat[6, 1]), int(target.flat[17, 1]))
    kept, not_kept = (
        fusing.fuse(world.astronaut(), world.astronauts_face(), barred, target, rendering)
        for rendering in (Rendering(Mask.HULL), Rendering(Mask.HULL, occlusion=False))
    )
    off = [np.abs(image[rows, x + 3 : x + 6].astype(int) - (20, 90, 20)).mean() for image in (kept, not_kept)]
    assert off[0] < 12
    assert off[1] > 2 * off[0] + 10


def test_no_bright_band_lies_above_the_brows() -> None:
    """The astronaut's fringe has her skin's colour: were it skin, what is below would shine."""
    target = world.face("photo-six-faces", world.LAUGHS)
    shape = world.group().shape[:2]
    fades = mask.below_brows(target.flat, shape, rise=0.2, fade=0.01) - mask.below_brows(
        target.flat, shape, rise=-0.02, fade=0.01
    )
    before, after = (world.lab(image)[..., 0] for image in (world.group(), fused(world.LAUGHS)))
    band = (fades > 0.5) & (mask.extent(target.flat, shape) > 0.01)
    brightest = np.quantile(before[band], 0.98)
    assert (after[band] > brightest + 2).mean() < 0.02
