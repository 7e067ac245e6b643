"""The warp: identity on identical points, exact on similarities, and each point on its own."""

from __future__ import annotations

import numpy as np
import pytest

from facetmesh.fusion.pipeline import mesh, warp

from . import fusion_world as world


def grid(shape: tuple[int, int]) -> np.ndarray:
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32)
    return np.dstack([x, y])


def test_identical_points_leave_the_image_as_it_is() -> None:
    image = world.astronaut()
    points = world.astronauts_face().flat
    field = warp.dense_map(points, points, image.shape[:2])
    assert np.abs(field - grid(image.shape[:2])).max() < 1e-2
    assert np.abs(warp.resample(image, field, scale=1).astype(int) - image).max() <= 2


def test_a_similarity_is_followed_everywhere() -> None:
    source = world.astronauts_face().flat
    turn = np.array([[0.8, -0.6], [0.6, 0.8]], np.float32) * 1.5
    target = (source @ turn.T + (90, -20)).astype(np.float32)
    field = warp.dense_map(source, target, (600, 600))
    expected = (grid((600, 600)) - (90, -20)) @ np.linalg.inv(turn).T
    assert np.abs(field - expected).max() < 0.05


def test_each_point_of_another_face_comes_from_its_own_place() -> None:
    source = world.astronauts_face()
    target = world.face("photo-six-faces", world.SMILES)
    field = warp.dense_map(source.flat, target.flat, world.group().shape[:2])
    columns, rows = np.rint(target.flat).astype(int).T
    # The nearest whole pixel is up to 0.7 away, and the map is smoothed.
    error = np.linalg.norm(field[rows, columns] - source.flat, axis=1) / source.unit
    assert np.median(error) < 0.02
    assert error.max() < 0.12


def test_shrinking_does_not_alias() -> None:
    stripes = np.zeros((400, 400, 3), np.uint8)
    stripes[:, ::2] = 255
    small = warp.resample(stripes, grid((100, 100)) * 4, scale=0.25)
    assert np.abs(small[2:-2, 2:-2].astype(int) - 127).max() < 8


def test_triangles_cover_the_face_once() -> None:
    points = world.astronauts_face().flat
    triangles = mesh.triangulate(points)
    assert triangles.shape[1] == 3
    assert set(triangles.ravel()) == set(range(mesh.POINTS))
    a, b, c = (points[triangles[:, corner]] for corner in range(3))
    area = np.abs(np.cross(np.pad(b - a, ((0, 0), (0, 1))), np.pad(c - a, ((0, 0), (0, 1))))[:, 2]).sum() / 2
    hull = points[list(mesh.OVAL)]
    x, y = hull.T
    assert area == pytest.approx(abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2, rel=0.05)


def test_a_stretched_face_has_nothing_to_show() -> None:
    y, x = np.mgrid[0:80, 0:120].astype(np.float32)
    x = np.where(x < 60, x * 2, 120 + (x - 60) * 0.1)  # the right half is made of a narrow strip
    shown = warp.shown(np.dstack([x, y * 2]).astype(np.float32), scale=0.5, unit=30)
    assert shown[:, :50].min() > 0.99
    assert shown[:, 70:].max() < 0.01
