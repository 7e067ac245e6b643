"""Masks: each is where its name says, and fades as wide as it is told."""

from __future__ import annotations

import numpy as np
import pytest

from facetmesh.fusion.pipeline import mesh, regions
from facetmesh.fusion.pipeline.rendering import MAX_FEATHER, Mask, Region, Rendering

from . import fusion_world as world

SHAPE = 512, 512


def extent(rendering: Rendering) -> np.ndarray:
    return regions.extent(world.astronauts_face().flat, SHAPE, rendering)


def at(weights: np.ndarray, *points: int) -> list[bool]:
    """Whether each of the face's points is within."""
    places = np.rint(world.astronauts_face().flat[list(points)]).astype(int)
    return [bool(weights[y, x] > 0.5) for x, y in places]


NOSE, CHEEK, FOREHEAD, TEMPLE = 4, 50, 151, 127


def eyes_and_mouth(weights: np.ndarray) -> list[bool]:
    points = world.astronauts_face().flat
    places = [points[list(part)].mean(axis=0) for part in (mesh.RIGHT_EYE, mesh.LEFT_EYE, mesh.RIGHT_BROW, mesh.LIPS)]
    return [bool(weights[round(float(y)), round(float(x))] > 0.5) for x, y in places]


@pytest.mark.parametrize(
    ("rendering", "inside"),
    [
        (Rendering(), [True, True, False]),
        (Rendering(Mask.HULL), [True, True, True]),
        (Rendering(Mask.BOX), [True, True, True]),
        (Rendering(Mask.REGIONS, (Region.NOSE,)), [True, False, False]),
        (Rendering(Mask.REGIONS, (Region.SKIN,)), [True, True, False]),
        (Rendering(Mask.REGIONS, (Region.MOUTH, Region.EYES)), [False, False, False]),
    ],
)
def test_a_mask_holds_what_its_name_says(rendering: Rendering, inside: list[bool]) -> None:
    assert at(extent(rendering), NOSE, CHEEK, FOREHEAD) == inside


@pytest.mark.parametrize(
    ("regions_", "inside"),
    [
        ((Region.EYES,), [True, True, True, False]),
        ((Region.MOUTH,), [False, False, False, True]),
        ((Region.NOSE,), [False, False, False, False]),
        ((Region.SKIN,), [False, False, False, False]),
        ((Region.EYES, Region.MOUTH), [True, True, True, True]),
    ],
)
def test_regions_are_apart_and_join(regions_: tuple[Region, ...], inside: list[bool]) -> None:
    assert eyes_and_mouth(extent(Rendering(Mask.REGIONS, regions_))) == inside


def test_a_box_has_corners_and_a_hull_has_none() -> None:
    box, hull = extent(Rendering(Mask.BOX)), extent(Rendering(Mask.HULL))
    rows, columns = np.nonzero(box > 0.9)
    assert box[rows.min(), columns.min()] > 0.6
    assert hull[rows.min(), columns.min()] < 0.1
    assert box.sum() > hull.sum() > extent(Rendering()).sum()


@pytest.mark.parametrize("mask", [Mask.FACE, Mask.HULL, Mask.BOX])
def test_a_wider_feather_fades_over_more_and_goes_no_further(mask: Mask) -> None:
    sharp, usual, wide = (extent(Rendering(mask, feather=feather)) for feather in (0.0, 0.06, MAX_FEATHER))
    soft = [int(((weights > 0.05) & (weights < 0.95)).sum()) for weights in (sharp, usual, wide)]
    assert soft == sorted(soft)
    assert soft[2] > 2 * soft[0]
    assert wide.max() > 0.9
    low, high = world.astronauts_face().flat.min(axis=0), world.astronauts_face().flat.max(axis=0)
    rows, columns = np.nonzero(wide > 0.06)
    assert low[0] <= columns.min() <= columns.max() <= high[0]
    assert low[1] <= rows.min() <= rows.max() <= high[1]
