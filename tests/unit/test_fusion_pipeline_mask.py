"""Masks: the face without forehead and hair, and its skin without features."""

from __future__ import annotations

import numpy as np

from facetmesh.fusion.pipeline import mask, mesh

from . import fusion_world as world


def at(weights: np.ndarray, x: float, y: float) -> float:
    return float(weights[round(y), round(x)])


def test_the_extent_ends_above_the_brows_and_within_the_outline() -> None:
    face = world.astronauts_face()
    extent = mask.extent(face.flat, world.astronaut().shape[:2])
    for point in (1, 50, 280, 199, 105, 334, 13):  # nose, cheeks, chin, brows, lips
        assert at(extent, *face.flat[point]) > 0.75
    for point in (10, 152, 234, 454):  # the outline's ends
        assert at(extent, *face.flat[point]) < 0.25
    assert at(extent, *face.flat[151]) < 0.5  # the forehead
    rows, columns = np.nonzero(extent > 0.01)
    box = world.box_around(face.points, 0.1)
    assert columns.min() > box.x_min
    assert columns.max() < box.x_max
    assert rows.max() < box.y_max


def test_skin_is_told_from_hair_and_cloth() -> None:
    face = world.astronauts_face()
    like = mask.likeness(world.lab(world.astronaut()), face.flat)
    for point in (50, 280, 199, 4):
        assert at(like, *face.flat[point]) > 0.9
    fringe, hair = (slice(62, 84), slice(195, 255)), (slice(90, 110), slice(158, 172))
    visible = mask.visible(face.flat, like, np.ones_like(like))
    for part in (fringe, hair):
        assert like[part].mean() < 0.6
        assert visible[part].mean() < 0.1
    assert visible[100:150, 200:240].mean() > 0.9


def test_bare_skin_has_no_features() -> None:
    face = world.astronauts_face()
    like = mask.likeness(world.lab(world.astronaut()), face.flat)
    bare = mask.bare_skin(face.flat, like, like)
    assert set(np.unique(bare)) == {0.0, 1.0}
    assert (bare * mask.features(face.flat, bare.shape)).sum() == 0
    assert at(bare, *face.flat[50]) == 1
    for outline in (mesh.LEFT_EYE, mesh.RIGHT_BROW, mesh.LIPS):
        assert at(bare, *face.flat[list(outline)].mean(axis=0)) == 0


def test_a_face_without_any_skin_in_sight_still_has_a_mask() -> None:
    points = world.astronauts_face().flat
    nothing = np.zeros((512, 512), np.float32)
    assert mask.bare_skin(points, nothing, nothing).sum() > 100


def test_hair_over_a_face_stays_and_a_shadow_on_its_middle_does_not() -> None:
    points = world.astronauts_face().flat
    like = np.ones((512, 512), np.float32)
    like[:, : round(points[:, 0].min() + 12)] = 0  # hair over the side
    cheek = points[36]
    like[round(cheek[1]) - 5 : round(cheek[1]) + 5, round(cheek[0]) - 5 : round(cheek[0]) + 5] = 0
    visible = mask.visible(points, like, np.ones_like(like))
    assert at(visible, points[:, 0].min() + 3, points[234, 1]) < 0.1
    assert at(visible, *cheek) > 0.9


def test_an_opening_is_the_mouths_inside() -> None:
    points = world.astronauts_face().flat
    hole = mask.opening(points, mesh.MOUTH, (512, 512))
    assert at(hole, *points[list(mesh.MOUTH)].mean(axis=0)) > 0.8
    assert at(hole, *points[17]) == 0


def test_a_fringe_of_the_skins_colour_tells_nothing_of_its_light() -> None:
    points = world.astronauts_face().flat
    everywhere = np.ones((512, 512), np.float32)
    whole, less = (mask.bare_skin(points, everywhere, everywhere, forehead=forehead) for forehead in (True, False))
    hairline = points[10] + (0, 12)
    assert (at(whole, *hairline), at(less, *hairline)) == (1, 0)
    for cheek in (50, 280):
        assert at(less, *points[cheek]) == 1
    assert (whole >= less).all()
