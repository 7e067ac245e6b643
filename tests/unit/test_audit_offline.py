"""The check that runs apart from the service: its answers, for each store, and for what is no log."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from .audit_world import World


@pytest.fixture
def world(audit_world: World) -> World:
    """Services and their keys, with each of the stores."""
    return audit_world


def check(world: World, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs it on the world's log."""
    where = "--url" if world.address.startswith("postgresql:") else "--log"
    return subprocess.run(
        [sys.executable, "-m", "facetmesh.audit.offline", f"{where}={world.address}", *arguments],
        capture_output=True, text=True, check=False,
    )


def found(done: subprocess.CompletedProcess[str]) -> Any:
    """Its answer."""
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


async def test_a_whole_log_and_one_that_was_changed(world: World) -> None:
    await world.fill(20)
    async with world.log() as (log, _):
        head = log.head
    answer = found(check(world, f"--size={head.size}", f"--root={head.root.hex()}"))
    assert answer == {"size": head.size, "root": head.root.hex(), "opened": False, "problems": []}
    other = found(check(world, f"--size={head.size}", f"--root={bytes(32).hex()}"))
    assert [one["where"] for one in other["problems"]] == ["checkpoint"]
    world.alter("UPDATE events SET time_us = 1 WHERE position = 7")
    assert [one["where"] for one in found(check(world))["problems"]] == ["event 7"]


def test_what_is_no_log(tmp_path: Path) -> None:
    from .audit_world import World  # noqa: PLC0415 - conftest has it first

    missing = check(World.at(str(tmp_path / "none.db")))
    assert missing.returncode == 1
    assert not (tmp_path / "none.db").exists()
    (tmp_path / "text.db").write_text("this is no database" * 1000)
    answer = found(check(World.at(str(tmp_path / "text.db"))))
    assert [one["where"] for one in answer["problems"]] == ["store"]
