"""How events share a publish."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from facetmesh.kit.audit import Record, Recorder
from facetmesh.kit.signing import EventSigner
from facetmesh.kit.telemetry import Metrics

if TYPE_CHECKING:
    from collections.abc import Sequence

    from facetmesh.kit.dapr import Outgoing

DEADLINE_S = 30.0


@dataclass
class Broker:
    """Accepts everything."""

    batches: list[int] = field(default_factory=list)

    async def publish_many(self, topic: str, events: Sequence[Outgoing], *, type: str) -> list[str]:  # noqa: A002 - the Protocol's name
        """Counts."""
        del topic, type
        self.batches.append(len(events))
        return []


def recorder_to(broker: Broker) -> Recorder:
    """A recorder that publishes there."""
    return Recorder("test", EventSigner("detection", bytes(32)), broker, Metrics.create())


async def accept(recorder: Recorder, count: int) -> None:
    """Has so many events accepted, one arriving after the other, of calls that took long."""
    began = time.perf_counter() - DEADLINE_S
    async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(recorder.accept(Record("facetmesh.Test/Do", started=began)))
            await asyncio.sleep(0)
            await asyncio.sleep(0)


async def test_a_call_alone_is_published_at_once() -> None:
    """It would wait for nobody."""
    broker = Broker()
    recorder = recorder_to(broker)
    with recorder.expecting():
        await accept(recorder, 1)
    await recorder.close()
    assert broker.batches == [1]


async def test_with_many_at_work_some_share_a_publish() -> None:
    """A quarter of those that are expected."""
    broker = Broker()
    recorder = recorder_to(broker)
    with ExitStack() as calls:
        for _ in range(32):
            calls.enter_context(recorder.expecting())
        await accept(recorder, 16)
    await recorder.close()
    assert broker.batches == [8, 8]


async def test_nobody_waits_long_for_others() -> None:
    """Those that were expected may take for ever."""
    broker = Broker()
    recorder = recorder_to(broker)
    with ExitStack() as calls:
        for _ in range(32):
            calls.enter_context(recorder.expecting())
        await accept(recorder, 2)
    await recorder.close()
    assert broker.batches == [2]
