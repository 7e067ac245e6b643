"""How events share a publish."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from facetmesh.kit import outbox
from facetmesh.kit.audit import Record, Recorder
from facetmesh.kit.errors import Cancelled, NotFound
from facetmesh.kit.signing import EventSigner
from facetmesh.kit.telemetry import Metrics

if TYPE_CHECKING:
    from collections.abc import Sequence

    from facetmesh.kit.dapr import Outgoing

DEADLINE_S = 60.0
TENANT, OTHER = "tenants/acme", "tenants/globex"


@dataclass
class Broker:
    """Accepts everything."""

    batches: list[int] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)

    async def publish_many(self, topic: str, events: Sequence[Outgoing], *, type: str) -> list[str]:  # noqa: A002 - the Protocol's name
        """Counts."""
        del topic, type
        self.batches.append(len(events))
        self.ids += [event.id for event in events]
        return []


def recorder_to(broker: Broker) -> Recorder:
    """A recorder that publishes there."""
    return Recorder("test", EventSigner("detection", bytes(32)), broker, Metrics.create())


async def accept(
    recorder: Recorder, count: int, tenant: str = TENANT, last: str = "", waited_s: float = 10 * DEADLINE_S
) -> None:
    """Has so many events of a tenant accepted, one arriving after the other, of calls that waited for their turn.

    Then one more, where another tenant is named.
    """
    async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as group:
        for one in [tenant] * count + ([last] if last else []):
            group.create_task(recorder.accept(Record("facetmesh.Test/Do", one, queued_s=waited_s)))
            await asyncio.sleep(0)
            await asyncio.sleep(0)


async def test_a_call_alone_is_published_at_once() -> None:
    """It would wait for nobody."""
    broker = Broker()
    recorder = recorder_to(broker)
    with recorder.expecting(TENANT):
        await accept(recorder, 1)
    await recorder.close()
    assert broker.batches == [1]


@pytest.mark.parametrize(("at_work", "together"), [(1, 1), (7, 1), (8, 2), (16, 8), (32, 16)])
async def test_with_many_at_work_some_share_a_publish(
    monkeypatch: pytest.MonkeyPatch, at_work: int, together: int
) -> None:
    """A quarter of those that are expected, and half where they are many."""
    monkeypatch.setattr(outbox, "_LONGEST_LINGER_S", DEADLINE_S)
    broker = Broker()
    recorder = recorder_to(broker)
    with ExitStack() as calls:
        for _ in range(at_work):
            calls.enter_context(recorder.expecting(TENANT))
        await accept(recorder, 2 * together)
    await recorder.close()
    assert broker.batches == [together, together]


async def test_who_has_few_calls_does_not_wait_for_the_many_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the other that wait already go with his."""
    monkeypatch.setattr(outbox, "_LONGEST_LINGER_S", 2 * DEADLINE_S)
    broker = Broker()
    recorder = recorder_to(broker)
    with ExitStack() as calls:
        for tenant in [OTHER] * 32 + [TENANT]:
            calls.enter_context(recorder.expecting(tenant))
        await accept(recorder, 3, OTHER, TENANT)
    await recorder.close()
    assert broker.batches == [4]


async def test_who_did_not_wait_for_a_turn_waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where cores are free, more answers a second are of no use to anyone."""
    monkeypatch.setattr(outbox, "_LONGEST_LINGER_S", 2 * DEADLINE_S)
    broker = Broker()
    recorder = recorder_to(broker)
    with ExitStack() as calls:
        for _ in range(32):
            calls.enter_context(recorder.expecting(TENANT))
        await accept(recorder, 3, waited_s=0.0)
    await recorder.close()
    assert sum(broker.batches) == 3


async def test_nobody_waits_long_for_others() -> None:
    """Those that were expected may take for ever."""
    broker = Broker()
    recorder = recorder_to(broker)
    with ExitStack() as calls:
        for _ in range(32):
            calls.enter_context(recorder.expecting(TENANT))
        await accept(recorder, 2)
    await recorder.close()
    assert sum(broker.batches) == 2


async def test_refusals_go_with_the_answers_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of them costs few publishes."""
    monkeypatch.setattr(outbox, "_LONGEST_LINGER_S", 2 * DEADLINE_S)
    broker = Broker()
    recorder = recorder_to(broker)
    for _ in range(9):
        recorder.offer(Record("facetmesh.Test/Do", TENANT), NotFound("no"))
    await accept(recorder, 1)
    assert broker.batches == [10]
    recorder.offer(Record("facetmesh.Test/Do", TENANT), NotFound("no"))
    await recorder.close()
    assert broker.batches == [10, 1]


async def test_refusals_go_together_where_nobody_waits() -> None:
    """After a moment."""
    broker = Broker()
    recorder = recorder_to(broker)
    for _ in range(9):
        recorder.offer(Record("facetmesh.Test/Do", TENANT), NotFound("no"))
    async with asyncio.timeout(DEADLINE_S):
        while not broker.batches:
            await asyncio.sleep(0.01)
    assert broker.batches == [9]
    await recorder.close()


async def test_what_comes_after_the_answer_was_accounted_for_is_an_event_of_its_own() -> None:
    """A stream that is cut off, or a caller who goes in the last moment: the log refuses another event with the id."""
    broker = Broker()
    recorder = recorder_to(broker)
    record = Record("facetmesh.Test/Do", TENANT)
    await recorder.accept(record)
    recorder.offer(record, Cancelled("gone"))
    await recorder.close()
    told, later = broker.ids
    assert told == record.id != later
