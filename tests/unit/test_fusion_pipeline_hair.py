"""Hair: what of a face is behind it, also where it has the skin's colour."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from facetmesh.fusion.pipeline import hair, landmarks, mask, mesh
from facetmesh.fusion.pipeline.fuse import fuse
from facetmesh.fusion.pipeline.rendering import Rendering

from . import fusion_world as world

BEHIND = (352, 447, 366)
"""Of who looks down, the left cheek's side."""
BARE = (1, 4, 195, 50, 101, *mesh.LEFT_EYE, *mesh.RIGHT_BROW)
"""Nose, right cheek, an eye and a brow."""


def seen(cut: hair.Cut, points: np.ndarray) -> np.ndarray:
    return cut.through(points[np.newaxis].astype(np.float32))[0]


@pytest.mark.parametrize(("degrees", "scale"), [(0, 1.0), (40, 1.0), (-25, 2.0)])
def test_a_cheek_behind_hair_of_its_colour_is_not_seen(degrees: float, scale: float) -> None:
    face = world.face("photo-six-faces", world.LOOKS_DOWN)
    like = mask.likeness(world.lab(world.group()), face.flat)
    x, y = np.rint(face.flat[list(BEHIND)]).astype(int).T
    assert np.median(like[y, x]) > 0.5  # its colour does not tell
    turned = world.turned(world.group(), degrees, scale)
    points = np.column_stack([turned.moved(face.points), face.points[:, 2] * scale]).astype(np.float32)
    cut = hair.cut(turned.pixels, replace(face, points=points))
    assert seen(cut, points[list(BEHIND), :2]).max() < 0.2
    assert seen(cut, points[list(BARE), :2]).min() > 0.8


@pytest.mark.parametrize(("photo", "box"), [
    ("photo-astronaut", world.ASTRONAUT), ("photo-six-faces", world.SMILES), ("photo-six-faces", world.LAUGHS),
])  # fmt: skip
def test_a_bare_face_is_seen(photo: str, box: landmarks.Box) -> None:
    face = world.face(photo, box)
    y, x = np.nonzero(mask.extent(face.flat, world.photo(photo).shape[:2]) > 0.9)
    assert seen(hair.cut(world.photo(photo), face), np.column_stack([x, y])).mean() > 0.95


def test_the_same_picture_is_cut_in_the_same_way() -> None:
    face = world.face("photo-six-faces", world.LOOKS_DOWN)
    assert np.array_equal(hair.cut(world.group(), face).seen, hair.cut(world.group(), face).seen)


def test_no_strand_of_the_sources_lies_on_the_targets_cheek() -> None:
    source, target = (world.face("photo-six-faces", box) for box in (world.LOOKS_DOWN, world.LAUGHS))
    plain, all_of_it = (
        fuse(world.group(), source, world.group(), target, Rendering(occlusion=said)) for said in (True, False)
    )
    strand = mask.filled([target.flat[[345, 352, 447, 346]]], world.group().shape[:2]) > 0.5
    off = [
        world.delta_e(world.lab(image), world.lab(world.group()))[strand].mean() for image in (plain, all_of_it)
    ]
    assert off[0] < off[1] / 2
