"""Work on models' files: what it may take from those who are served meanwhile."""

from __future__ import annotations

from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facetmesh.detection.hints import Hints
from facetmesh.detection.workshop import Workshop
from facetmesh.runners.settings import RunnerLimits
from facetmesh.runners.tasks import Reply

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from facetmesh.runners.settings import PoolLimits


class Inspector:
    """A runner that has looked at a file."""

    async def call(self, **_: Any) -> Reply:
        return Reply({"labels": ["face"], "task": "detect", "height": 32, "width": 32, "inputs": [], "outputs": []})


async def test_who_inspects_leaves_the_cores_to_those_who_serve() -> None:
    seen: list[PoolLimits] = []

    @asynccontextmanager
    async def processes(_program: str, /, *, limits: PoolLimits) -> AsyncIterator[Inspector]:
        seen.append(limits)
        yield Inspector()

    facts = await Workshop(processes).inspect(Path("/upload_1/model.onnx"), "", Hints())
    assert facts.labels == ("face",)
    assert [limits.runner.nice > RunnerLimits().nice for limits in seen] == [True]
