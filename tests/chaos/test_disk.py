"""The disk is full."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from tests.mesh.conftest import Collector, running

from facetmesh.cli.mesh.health import Health

from .disk import Disk, small_disk
from .results import LASTS_S
from .trial import try_out
from .world import DEADLINE_S, World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.full


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A small disk."""
    with small_disk(tmp_path / "disk") as made:
        yield made


async def test_a_full_disk_refuses_work_and_says_so_and_loses_nothing(
    disk: Disk, collector: Collector, group: bytes, astronaut: bytes,
) -> None:
    with running(disk.folder / "home", collector) as mesh:
        world = World(mesh, "embedded", astronaut, group)
        assert world.key

        async def fill() -> None:
            with disk.full([mesh.pid("sidecar"), mesh.pid("audit")]):
                await until_not_serving(mesh.endpoints.detection)
                await asyncio.sleep(LASTS_S)

        result = await try_out(world, f"the disk is full for {LASTS_S} s ({disk.kind})", fill)
    assert result.refusals


async def until_not_serving(address: str) -> None:
    """Returns once the service's health says that it cannot serve."""
    health = Health(address)
    async with asyncio.timeout(DEADLINE_S):
        while await health.state() != "NOT_SERVING":
            await asyncio.sleep(0.1)
    await health.close()
