"""Blending: nothing where nothing is asked, all where all is, and no edge between."""

from __future__ import annotations

import numpy as np
import pytest

from facetmesh.fusion.pipeline import blend


@pytest.fixture
def images() -> tuple[np.ndarray, np.ndarray]:
    """Two images of noise."""
    rng = np.random.default_rng(0)
    return rng.random((97, 130, 3), np.float32), rng.random((97, 130, 3), np.float32)


def test_alpha_0_is_the_back_and_alpha_1_the_front(images: tuple[np.ndarray, np.ndarray]) -> None:
    front, back = images
    nothing = np.zeros((97, 130), np.float32)
    assert np.array_equal(blend.multiband(front, back, nothing), back)
    assert np.abs(blend.multiband(front, back, nothing + 1) - front).max() < 1e-5


def test_a_hard_mask_leaves_no_edge_between_flat_colours() -> None:
    front, back = np.full((128, 128, 3), 0.8, np.float32), np.full((128, 128, 3), 0.2, np.float32)
    alpha = np.zeros((128, 128), np.float32)
    alpha[:, 64:] = 1
    step = np.abs(np.diff(blend.multiband(front, back, alpha), axis=1)).max()
    assert step < 0.06  # of 0.6


def test_details_keep_to_their_side_of_a_hard_mask() -> None:
    back = np.full((128, 128, 3), 0.5, np.float32)
    front = back.copy()
    front[:, ::2] += 0.2
    front[:, 1::2] -= 0.2
    alpha = np.zeros((128, 128), np.float32)
    alpha[:, 64:] = 1
    joined = blend.multiband(front, back, alpha)
    assert np.abs(joined[:, 56] - 0.5).max() < 0.06
    assert np.abs(joined[:, 72:74, 0] - front[:, 72:74, 0]).max() < 0.06


@pytest.mark.parametrize("shape", [(1, 1), (3, 40), (15, 15), (17, 16)])
def test_small_images_are_blended_too(shape: tuple[int, int]) -> None:
    front, back = np.ones((*shape, 3), np.float32), np.zeros((*shape, 3), np.float32)
    joined = blend.multiband(front, back, np.full(shape, 0.25, np.float32))
    assert np.abs(joined - 0.25).max() < 1e-5
