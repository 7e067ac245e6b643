"""Landmarks: the same points however a face is turned, and a reason for each refusal."""

from __future__ import annotations

import numpy as np
import pytest

from facetmesh.fusion.pipeline import landmarks, mesh
from facetmesh.kit.errors import InvalidArgument

from . import fusion_world as world


@pytest.mark.parametrize(("degrees", "scale"), [(0, 1), (30, 1), (-45, 1), (80, 1), (15, 0.6), (0, 3), (-20, 6)])
def test_points_follow_a_face_that_is_turned_and_scaled(degrees: float, scale: float) -> None:
    known = world.astronauts_face()
    view = world.turned(world.astronaut(), degrees, scale)
    expected = view.moved(known.points)
    found = landmarks.find(world.facemesh(), view.pixels, world.box_around(expected))
    error = np.linalg.norm(found.flat - expected, axis=1) / mesh.eye_distance(expected)
    assert np.median(error) < 0.03
    assert found.score > 0.9


def test_it_hardly_matters_how_a_detector_draws_its_box() -> None:
    known = world.astronauts_face()
    for margin in (-0.12, 0.0, 0.25):
        found = landmarks.find(world.facemesh(), world.astronaut(), world.box_around(known.points, margin))
        assert np.median(np.linalg.norm(found.flat - known.flat, axis=1)) < 0.025 * known.unit


def test_known_eyes_are_used_and_lead_to_the_same_points() -> None:
    known = world.astronauts_face()
    view = world.turned(world.astronaut(), 170, 1)
    expected = view.moved(known.points)
    box = world.box_around(expected)
    found = landmarks.find(world.facemesh(), view.pixels, box, eyes=mesh.eye_centres(expected))
    assert np.median(np.linalg.norm(found.flat - expected, axis=1)) < 0.03 * known.unit


def test_yaw_and_roll_are_those_of_the_photo() -> None:
    known = world.astronauts_face()
    assert abs(known.yaw_deg) < 5
    view = world.turned(world.astronaut(), -30, 1)
    found = landmarks.find(world.facemesh(), view.pixels, world.box_around(view.moved(known.points)))
    assert np.degrees(found.roll_rad - known.roll_rad) == pytest.approx(30, abs=2)


def refused(image: np.ndarray, box: landmarks.Box) -> InvalidArgument:
    with pytest.raises(InvalidArgument) as refusal:
        landmarks.find(world.facemesh(), image, box, which="target")
    assert refusal.value.metadata["image"] == "target"
    assert "target" in refusal.value.message
    return refusal.value


def test_a_profile_is_refused() -> None:
    assert refused(world.group(), world.PROFILE).reason == "FACE_PROFILE"


def test_a_tiny_face_is_refused() -> None:
    view = world.turned(world.astronaut(), 0, 0.4)
    box = world.box_around(view.moved(world.astronauts_face().points))
    assert refused(view.pixels, box).reason == "FACE_TOO_SMALL"


def test_a_face_that_is_cut_off_is_refused() -> None:
    x_max = int(world.astronauts_face().points[4, 0])  # the nose
    assert refused(world.astronaut()[:, :x_max], world.ASTRONAUT).reason == "FACE_AT_EDGE"
    y_max = int(world.astronauts_face().points[13, 1])  # the mouth
    assert refused(world.astronaut()[:y_max], world.ASTRONAUT).reason == "FACE_AT_EDGE"


@pytest.mark.parametrize("box", [(380, 150, 480, 250), (20, 400, 120, 500)])
def test_what_is_no_face_is_refused(box: tuple[float, float, float, float]) -> None:
    assert refused(world.astronaut(), landmarks.Box(*box)).reason == "FACE_NOT_CLEAR"


@pytest.mark.parametrize("box", [(-900, -900, -800, -800), (5000, 5000, 5100, 5100), (-50, -50, 60, 60)])
def test_a_box_beyond_the_image_is_no_accident(box: tuple[float, float, float, float]) -> None:
    assert refused(world.astronaut(), landmarks.Box(*box)).reason in {"FACE_NOT_CLEAR", "FACE_AT_EDGE"}
