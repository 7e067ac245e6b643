"""The meshes that are harmed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.mesh.conftest import Collector, assets, astronaut, collector, group, running

from .world import World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["assets", "astronaut", "collector", "group"]  # fixtures

PROVIDERS = {"embedded": (), "daprd": ("--sidecar", "daprd")}
"""What `facetmesh up` is told for each provider of Dapr's API."""


@pytest.fixture(scope="module", params=list(PROVIDERS))
def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, collector: Collector, group: bytes,
    astronaut: bytes,
) -> Iterator[World]:
    """A mesh that a module's tests may harm, with either provider."""
    home: Path = tmp_path_factory.mktemp(f"chaos-{request.param}") / "home"
    with running(home, collector, *PROVIDERS[request.param]) as mesh:
        made = World(mesh, request.param, astronaut, group)
        assert made.key
        yield made
