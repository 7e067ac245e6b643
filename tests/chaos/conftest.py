"""The meshes that are harmed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.mesh.conftest import Collector, assets, astronaut, collector, group, running

from facetmesh.cli.mesh.ports import SERVICES

from .results import ROUNDS
from .world import World

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["assets", "astronaut", "collector", "group"]  # fixtures

PROVIDERS = {"embedded": (), "daprd": ("--sidecar", "daprd")}
"""What `facetmesh up` is told for each provider of Dapr's API."""
_SPARED = tuple(f"[daprd-{victim}]" for victim in (*SERVICES, "detection runner", "fusion runner"))


@pytest.fixture(scope="module", params=list(PROVIDERS))
def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, collector: Collector, group: bytes,
    astronaut: bytes,
) -> Iterator[World]:
    """A mesh that a module's tests may harm, with either provider."""
    home: Path = tmp_path_factory.mktemp(f"chaos-{request.param}") / "home"
    # Runners are killed again and again: that is not to be taken for a model that kills them.
    variables = {"FACETMESH_RUNNER_DEATHS": str(100 * ROUNDS)}
    with running(home, collector, *PROVIDERS[request.param], variables=variables) as mesh:
        made = World(mesh, request.param, astronaut, group)
        assert made.key
        yield made


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In the short form, daprd's mesh is harmed only where it differs: its sidecars, and what keeps state."""
    if ROUNDS > 1:
        return
    here = Path(__file__).parent
    spared = [item for item in items if item.path.is_relative_to(here) and item.name.endswith(_SPARED)]
    config.hook.pytest_deselected(items=spared)
    items[:] = [item for item in items if item not in spared]
