"""Work on models' files: what it may take from those who are served meanwhile."""

from __future__ import annotations

import asyncio
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
    """A runner that looks at a file."""

    def __init__(self, *, done: bool = True) -> None:
        self.began, self.done = asyncio.Event(), asyncio.Event()
        self.told: list[tuple[str, str]] = []
        if done:
            self.done.set()

    async def call(self, **_: Any) -> Reply:
        self.began.set()
        await self.done.wait()
        return Reply({"labels": ["face"], "task": "detect", "height": 32, "width": 32, "inputs": [], "outputs": []})

    def pause(self, domain: str) -> None:
        """Is remembered."""
        self.told.append(("pause", domain))

    def resume(self, domain: str) -> None:
        """Is remembered."""
        self.told.append(("resume", domain))


async def test_who_inspects_leaves_the_cores_to_those_who_serve() -> None:
    seen: list[PoolLimits] = []

    @asynccontextmanager
    async def processes(_program: str, /, *, limits: PoolLimits) -> AsyncIterator[Inspector]:
        seen.append(limits)
        yield Inspector()

    facts = await Workshop(processes).inspect(Path("/upload_1/model.onnx"), "", Hints())
    assert facts.labels == ("face",)
    assert [limits.runner.nice > RunnerLimits().nice for limits in seen] == [True]


async def test_it_stands_still_when_told_to() -> None:
    inspector = Inspector(done=False)

    @asynccontextmanager
    async def processes(_program: str, /, *, limits: PoolLimits) -> AsyncIterator[Inspector]:
        del limits
        yield inspector

    workshop = Workshop(processes)
    inspection = asyncio.create_task(workshop.inspect(Path("/upload_1/model.onnx"), "", Hints()))
    async with asyncio.timeout(60):
        await inspector.began.wait()
    for _ in range(2):
        workshop.pause("acme")
        workshop.resume()
    told = [("pause", "upload_1"), ("resume", "upload_1")]
    assert inspector.told == told * 2
    inspector.done.set()
    await inspection
    workshop.pause("acme")
    workshop.resume()
    assert inspector.told == told * 2


async def test_nothing_starts_while_it_stands_still() -> None:
    inspector = Inspector()

    @asynccontextmanager
    async def processes(_program: str, /, *, limits: PoolLimits) -> AsyncIterator[Inspector]:
        del limits
        yield inspector

    workshop = Workshop(processes)
    workshop.pause("acme")
    inspection = asyncio.create_task(workshop.inspect(Path("/upload_1/model.onnx"), "", Hints()))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not inspector.began.is_set()
    workshop.resume()
    async with asyncio.timeout(60):
        await inspection
