"""The stages put together: one face of one photo into one face of another."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import cv2
import numpy as np

from facetmesh.fusion.pipeline import blend, colour, hair, mask, mesh, regions, warp
from facetmesh.fusion.pipeline.frames import lab_of, resized, scaled, unit_of, window_of
from facetmesh.fusion.pipeline.rendering import PLAIN, Mask
from facetmesh.runners.stopwatch import part

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from facetmesh.fusion.pipeline.frames import Image, Pixels
    from facetmesh.fusion.pipeline.landmarks import Face
    from facetmesh.fusion.pipeline.mesh import Points
    from facetmesh.fusion.pipeline.rendering import Rendering

    Weights = NDArray[np.float32]

MAX_UNIT_PX = 400.0
"""A face with its eyes further apart is worked on smaller, to bound time and memory."""
MASK_UNIT_PX = 64.0
"""Masks are soft: they are made at this eye distance at most and then enlarged."""
VISIBLE = 0.002
"""Less than half a step of 255: pixels with so little of the source stay as they were."""
OPENINGS = ((mesh.MOUTH, *mesh.MOUTH_MIDDLES), (mesh.RIGHT_EYE, 159, 145), (mesh.LEFT_EYE, 386, 374))
"""What can open: outline, upper and lower middle."""


@dataclass(frozen=True, slots=True)
class View:
    """The part of a target that is worked on."""

    pixels: Pixels
    """RGB, uint8, (rows, columns, 3)."""
    points: Points
    """The face's in it, (468, 2)."""
    origin: tuple[int, int]
    """Its left top corner in the target."""
    scale: float
    """How much smaller it is than there, up to 1."""


@dataclass(frozen=True, slots=True)
class Front:
    """What is put over a view."""

    pixels: Pixels
    """RGB, uint8, of the view's size."""
    shown: Weights
    """How much of it there is to see at each pixel, 0 to 1, (rows, columns)."""
    bare: Weights
    """How much of that is a face, and not hair before it, 0 to 1, (rows, columns)."""
    points: Points
    """The face's that it shows, (468, 2), in whatever frame."""


def fuse(
    source: Pixels,
    source_face: Face,
    target: Pixels,
    target_face: Face,
    rendering: Rendering = PLAIN,
    cut: hair.Cut | None = None,
) -> Pixels:
    """The target with the source's face, in the target's pose, expression and light.

    Args:
        source: RGB, uint8, (height, width, 3).
        source_face: The face to take.
        target: The same, of any size.
        target_face: The face to replace.
        rendering: How it is put in.
        cut: What is seen of the face to take, where that is known already.

    Returns:
        An image of the target's size; outside of the mask it is the target, byte for byte.
    """
    cut = cut or hair.cut(source, source_face)
    return put(target, target_face, partial(_warped, source, source_face, cut), rendering)


def put(target: Pixels, face: Face, draw: Callable[[View], Front], rendering: Rendering) -> Pixels:
    """The target with what is drawn in place of a face, in the target's light, under a soft mask.

    Args:
        target: RGB, uint8, (height, width, 3).
        face: The face to replace.
        draw: Draws what comes in its place.
        rendering: How it is put in.

    Returns:
        An image of the target's size; outside of the mask it is the target, byte for byte.
    """
    x, y, columns, rows = window_of(face.flat, target)
    window = target[y : y + rows, x : x + columns]
    scale = min(1.0, MAX_UNIT_PX / face.unit)
    view = View(resized(window, scale), scaled(face.flat - (x, y), scale), (x, y), scale)
    with part("warp"):
        drawn = draw(view)
    alpha, front = _composed(drawn, view.pixels, view.points, rendering)
    alpha = alpha * drawn.shown
    with part("blend"):
        fused = blend.multiband(front, unit_of(view.pixels), alpha)
        pixels = np.clip(np.rint(fused * 255), 0, 255).astype(np.uint8)
        if scale < 1:
            pixels = cv2.resize(pixels, (columns, rows), interpolation=cv2.INTER_CUBIC).astype(np.uint8)
            alpha = cv2.resize(alpha, (columns, rows), interpolation=cv2.INTER_LINEAR).astype(np.float32)
        result = target.copy()
        result[y : y + rows, x : x + columns] = np.where((alpha > VISIBLE)[..., np.newaxis], pixels, window)
        return result


def _warped(source: Pixels, face: Face, cut: hair.Cut, view: View) -> Front:
    """The source's face, moved to where the view's points are."""
    unit = mesh.eye_distance(view.points)
    larger = unit / face.unit
    field = warp.dense_map(face.flat, view.points, (view.pixels.shape[0], view.pixels.shape[1]))
    shown = warp.shown(field, scale=larger, unit=unit)
    return Front(warp.resample(source, field, scale=larger), shown, cut.through(field), face.flat)


def _composed(drawn: Front, target: Pixels, points: Points, rendering: Rendering) -> tuple[Weights, Image]:
    """How much of the source each pixel takes, and the source in the target's colours."""
    with part("mask"):
        source_lab, target_lab = lab_of(drawn.pixels), lab_of(target)
        scale = min(1.0, MASK_UNIT_PX / mesh.eye_distance(points))
        coarse = scaled(points, scale)
        bare = resized(drawn.bare, scale)
        like_s = mask.likeness(resized(source_lab, scale), coarse) * bare
        like_t = mask.likeness(resized(target_lab, scale), coarse)
        shape = like_s.shape[0], like_s.shape[1]
        visible = mask.visible(coarse, like_s, like_t) * bare if rendering.occlusion else np.ones(shape, np.float32)
        for outline, upper, lower in OPENINGS:
            ours, theirs = (mesh.gap(face, upper, lower) for face in (drawn.points, points))
            if theirs > mesh.OPEN and ours < theirs / 2:  # the source has nothing to show there
                visible = visible * (1 - mask.opening(coarse, outline, shape))
        size = target.shape[1], target.shape[0]
        unit = mesh.eye_distance(coarse)
        soft = cv2.GaussianBlur(like_s * (1 - mask.features(coarse, shape, 0.03)), (0, 0), max(0.5, 0.03 * unit))
        skin, like, visible, extent = (
            cv2.resize(weights, size, interpolation=cv2.INTER_LINEAR).astype(np.float32)
            for weights in (
                mask.bare_skin(coarse, like_s, like_t, forehead=rendering.mask in (Mask.HULL, Mask.BOX)),
                soft, visible, regions.extent(coarse, shape, rendering),
            )
        )
    with part("colour"):
        matched = source_lab
        if rendering.colour:
            matched = colour.match(source_lab, target_lab, skin, like, mesh.eye_distance(points))
        front, back = cv2.cvtColor(matched, cv2.COLOR_LAB2RGB), unit_of(target)
    # Coarse bands reach far: what must not be seen is replaced before, so that it does not bleed into them.
    front = back + (front - back) * visible[..., np.newaxis]
    return (rendering.weight * extent * visible).astype(np.float32), front.astype(np.float32)
