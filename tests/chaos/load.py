"""Clients that go on working whatever happens, and remember what they were told.

What counts is what was acknowledged: an answer with a receipt, an operation that was accepted. What was refused may
or may not have happened.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import pytest

from facetmesh.client import DeadlineExceeded, FacetmeshError, ResourceExhausted, Unavailable
from facetmesh.verify import verify_receipt

from .world import DEADLINE_S, TENANT, World, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from facetmesh.client import AsyncClient

_Answer = TypeVar("_Answer")
DETECTORS = 2
PACE_S = 0.05
_PATIENCE_S = 5.0
"""A round of calls that takes longer than this while we wait for the mesh counts as none; on a machine that is too slow
for that, each next one may take twice as long.
"""
_SOME = 3
"""Receipts that are verified in full each time; all are looked for in the log."""


class Load:
    """Works on a world.

    Args:
        world: The mesh.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self.receipts: list[str] = []
        """Of detections, in the order in which they were acknowledged."""
        self.operations: list[str] = []
        """Fusions that were accepted."""
        self.refusals: Counter[str] = Counter()
        """Why calls failed, and how often."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Works until the context ends. On entering, each kind of call has been answered once."""
        stopping = asyncio.Event()
        async with self._world.client() as client:
            kinds = [self._detect] * DETECTORS + [self._fuse]
            workers = [asyncio.create_task(self._work(kind, client, stopping)) for kind in kinds]
            try:
                done = (len(self.receipts), len(self.operations))
                await until(
                    lambda: len(self.receipts) > done[0] and len(self.operations) > done[1], f"work: {self.refusals}",
                )
                yield
            finally:
                stopping.set()
                async with asyncio.timeout(DEADLINE_S):
                    await asyncio.gather(*workers)

    async def goes_on(self) -> None:
        """Returns once more of each kind was acknowledged."""
        done = (len(self.receipts), len(self.operations))
        await until(
            lambda: len(self.receipts) > done[0] and len(self.operations) > done[1], f"work goes on: {self.refusals}",
        )

    async def _work(
        self, kind: Callable[[AsyncClient], Awaitable[None]], client: AsyncClient, stopping: asyncio.Event,
    ) -> None:
        while not stopping.is_set():
            try:
                await kind(client)
            except FacetmeshError as error:
                self.refusals[f"{error.code} {error.reason}"] += 1
            await asyncio.sleep(PACE_S)

    async def _detect(self, client: AsyncClient) -> None:
        self.receipts.append((await client.detect("faces", self._world.target)).receipt)

    async def _fuse(self, client: AsyncClient) -> None:
        consent = await client.create_consent(
            [self._world.source], subject="somebody", purpose="chaos", evidence=b"signed",
            expire_time=datetime.now(UTC) + timedelta(hours=1),
        )
        operation = await client.create_fusion(
            self._world.source, self._world.target, face_model="faces", consent=consent.name
        )
        self.operations.append(operation.name)
        await client.wait_fusion(operation.name)


async def served(world: World) -> None:
    """Returns once each service answers, in one round that began after the call."""

    async def round_() -> None:
        async with world.client() as client:
            await client.token()
            await client.list_models()
            await client.detect("faces", world.target)
            await client.list_operations(limit=1)
            await client.list_events(limit=1)

    deadline, patience_s = time.monotonic() + DEADLINE_S, _PATIENCE_S
    while True:
        try:
            async with asyncio.timeout(patience_s):
                return await round_()
        except (FacetmeshError, TimeoutError) as error:
            if time.monotonic() > deadline:
                pytest.fail(f"it does not serve again: {error!r}")
            patience_s *= 2 if isinstance(error, TimeoutError) else 1
        await asyncio.sleep(PACE_S)


async def account(world: World, load: Load) -> None:
    """Checks that what was acknowledged is there, and once."""
    log_key = (world.mesh.home / "log.vkey").read_text().strip()
    async with world.client() as client:
        names = [*load.receipts, *[await _finished(client, operation) for operation in load.operations]]
        logged = await _all_logged(client, names)
        for name in names[-_SOME:]:
            receipt = await _insist(partial(client.receipt, name))
            assert verify_receipt(receipt, log_key).tenant == f"tenants/{TENANT}"
    assert len(names) == len(set(names)), "a receipt was given twice"
    assert len(logged) == len(set(logged)), "an event is in the log twice"


async def _finished(client: AsyncClient, operation: str) -> str:
    """The receipt of a fusion that was accepted: it is finished, and its picture is there."""
    made = await _insist(partial(client.wait_fusion, operation))
    assert len(await _insist(partial(client.download_fusion, made.name))) == made.size_bytes
    return made.receipt


async def _all_logged(client: AsyncClient, names: Sequence[str]) -> list[str]:
    """The names of all receipts in the log, once these are among them."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        events = await _insist(partial(client.list_events, limit=None))
        logged = [f"tenants/{TENANT}/receipts/{one.event.id}" for one in events]
        lost = set(names) - set(logged)
        if not lost:
            return logged
        assert time.monotonic() < deadline, f"{len(lost)} of {len(names)} acknowledged events never came"
        await asyncio.sleep(0.5)


async def _insist(call: Callable[[], Awaitable[_Answer]]) -> _Answer:
    """What the call returns, repeated while it is told to come again."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            return await call()
        except (Unavailable, DeadlineExceeded, ResourceExhausted):
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(0.2)
