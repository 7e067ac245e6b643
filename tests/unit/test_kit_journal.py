"""The journal: on the disk before it is taken, published soon after, and by the next process where one dies."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from facetmesh.kit import journal
from facetmesh.kit.dapr import Outgoing
from facetmesh.kit.dapr.calls import LARGEST_BYTES
from facetmesh.kit.errors import FacetmeshError, FailedPrecondition, InvalidArgument, Unavailable
from facetmesh.kit.journal import opened
from facetmesh.kit.telemetry import Metrics

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from facetmesh.kit.journal import Journal

DEADLINE_S = 30.0
TOPIC, TYPE = "audit.events", "facetmesh.event.v1.SignedEvent"


@dataclass
class Broker:
    """Takes events while it is up."""

    batches: list[tuple[str, str, list[Outgoing]]] = field(default_factory=list)
    tried: asyncio.Event = field(default_factory=asyncio.Event)
    up: bool = True
    refuses: set[str] = field(default_factory=set)
    """Ids that it refuses one time."""

    @property
    def ids(self) -> list[str]:
        """Those of the events that it took, as they came."""
        return [event.id for _, _, events in self.batches for event in events]

    async def publish_many(self, topic: str, events: Sequence[Outgoing], *, type: str) -> list[str]:  # noqa: A002 - the Protocol's name
        """Takes events, or is down."""
        self.tried.set()
        if not self.up:
            raise Unavailable("The event broker does not answer.", reason="DAPR_UNAVAILABLE")
        refused = [event.id for event in events if event.id in self.refuses]
        self.refuses -= set(refused)
        self.batches.append((topic, type, [event for event in events if event.id not in refused]))
        return refused


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits long for company, or for a broker that is down."""
    monkeypatch.setattr(journal, "_COMPANY_S", 0.01)
    monkeypatch.setattr(journal, "_LONGEST_PAUSE_S", 0.01)
    monkeypatch.setattr(journal, "_CLOSING_S", 0.1)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "detection.journal"


def event(name: str) -> Outgoing:
    """An event of that id."""
    return Outgoing(name, name.encode() + b"\0\xff", {"traceparent": f"00-{name}"})


async def put(journal: Journal, *names: str) -> None:
    """Has events of those ids taken."""
    assert await journal.publish_many(TOPIC, [event(name) for name in names], type=TYPE) == []


async def until_published(journal: Journal) -> None:
    """Returns once nothing waits."""
    async with asyncio.timeout(DEADLINE_S):
        await journal.emptied()


def on_disk(file: Path) -> list[str]:
    """The ids that another process finds there."""
    with contextlib.closing(sqlite3.connect(file)) as other:
        return [name for (name,) in other.execute("SELECT id FROM events ORDER BY seq")]


async def test_an_event_is_on_the_disk_before_it_is_taken_and_not_after_it_was_published(
    file: Path, broker: Broker
) -> None:
    broker.up = False
    async with opened(file, broker, Metrics.create()) as journal:
        await put(journal, "a", "b")
        assert on_disk(file) == ["a", "b"]
        broker.up = True
        await until_published(journal)
    assert broker.batches == [(TOPIC, TYPE, [event("a"), event("b")])]
    assert on_disk(file) == []


async def test_events_of_a_moment_share_a_publish(file: Path, broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "_COMPANY_S", 0.3)
    monkeypatch.setattr(journal, "_CLOSING_S", DEADLINE_S)
    async with opened(file, broker, Metrics.create()) as book:
        for name in "abc":
            await put(book, name)
    assert [[one.id for one in events] for _, _, events in broker.batches] == [["a", "b", "c"]]


async def test_more_than_a_batch_goes_in_order(file: Path, broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "_LARGEST_BATCH", 4)
    names = [f"{number:02}" for number in range(10)]
    async with opened(file, broker, Metrics.create()) as book:
        await put(book, *names)
        await until_published(book)
    assert broker.ids == names
    assert [len(events) for _, _, events in broker.batches] == [4, 4, 2]


async def test_each_topic_has_a_publish_of_its_own(file: Path, broker: Broker) -> None:
    async with opened(file, broker, Metrics.create()) as book:
        await book.publish_many("one", [event("a")], type=TYPE)
        await book.publish_many("two", [event("b")], type=TYPE)
        await book.publish_many("one", [event("c")], type=TYPE)
        await until_published(book)
    assert sorted((topic, one.id) for topic, _, events in broker.batches for one in events) == [
        ("one", "a"), ("one", "c"), ("two", "b"),
    ]  # fmt: skip


async def test_what_a_process_leaves_its_next_one_publishes(file: Path, broker: Broker) -> None:
    broker.up = False
    async with opened(file, broker, Metrics.create()) as journal:
        await put(journal, "a")
        await put(journal, "b")
    broker.up = True
    async with opened(file, broker, Metrics.create()) as journal:
        await put(journal, "c")
        await until_published(journal)
    assert broker.ids == ["a", "b", "c"]
    assert broker.batches[0][2][0] == event("a")


async def test_what_the_broker_refuses_is_published_again(file: Path, broker: Broker) -> None:
    broker.refuses = {"b"}
    async with opened(file, broker, Metrics.create()) as journal:
        await put(journal, "a", "b", "c")
        await until_published(journal)
    assert broker.ids == ["a", "c", "b"]
    assert on_disk(file) == []


async def test_with_the_broker_down_for_long_none_is_taken_until_it_is_back(
    file: Path, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker.up = False
    async with opened(file, broker, Metrics.create()) as book:
        await put(book, "a")
        async with asyncio.timeout(DEADLINE_S):
            await broker.tried.wait()
        await put(book, "b")  # a moment without it is nobody's trouble
        monkeypatch.setattr(journal, "_GRACE_S", 0.0)
        with pytest.raises(Unavailable) as refusal:
            await put(book, "c")
        assert refusal.value.reason == "AUDIT_UNAVAILABLE"
        broker.up = True
        await until_published(book)
        await put(book, "d")
        await until_published(book)
    assert broker.ids == ["a", "b", "d"]


async def test_no_more_wait_than_may(file: Path, broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "_MOST_WAITING", 3)
    broker.up = False
    async with opened(file, broker, Metrics.create()) as book:
        await put(book, "a", "b")
        with pytest.raises(Unavailable) as refusal:
            await put(book, "c", "d")
        await put(book, "e")
    assert refusal.value.reason == "AUDIT_BACKLOG"
    assert on_disk(file) == ["a", "b", "e"]


async def test_what_can_never_be_published_is_not_taken(file: Path, broker: Broker) -> None:
    async with opened(file, broker, Metrics.create()) as journal:
        with pytest.raises(InvalidArgument):
            await journal.publish_many(TOPIC, [Outgoing("a", bytes(LARGEST_BYTES + 1), {})], type=TYPE)
        await put(journal, "b")
        await until_published(journal)
    assert broker.ids == ["b"]


@contextlib.contextmanager
def full(file: Path) -> Iterator[None]:
    """Nobody else can write: as good as a disk that takes nothing."""
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


async def test_a_disk_that_takes_nothing_is_told(
    file: Path, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("facetmesh.kit.store._BUSY_TIMEOUT_S", 0.01)
    async with opened(file, broker, Metrics.create()) as journal:
        with full(file), pytest.raises(Unavailable) as refusal:
            await put(journal, "a")
        assert refusal.value.reason == "AUDIT_UNAVAILABLE"
        await put(journal, "b")
        await until_published(journal)
    assert broker.ids == ["b"]


async def test_what_cannot_be_deleted_is_published_all_the_same(
    file: Path, broker: Broker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("facetmesh.kit.store._BUSY_TIMEOUT_S", 0.01)
    broker.up = False
    async with opened(file, broker, Metrics.create()) as journal:
        await put(journal, "a")
        with full(file):
            broker.up = True
            await until_published(journal)
            async with asyncio.timeout(DEADLINE_S):
                while "could not be deleted" not in caplog.text:
                    await asyncio.sleep(0.01)
    async with opened(file, broker, Metrics.create()) as journal:
        await until_published(journal)
    assert broker.ids == ["a", "a"]


async def test_a_journal_is_for_one_process(file: Path, broker: Broker) -> None:
    async with opened(file, broker, Metrics.create()):
        with pytest.raises(FailedPrecondition, match="in use by another process") as refusal:
            async with opened(file, broker, Metrics.create()):
                pass
    assert refusal.value.reason == "JOURNAL_UNUSABLE"


@pytest.fixture
def no_journal(file: Path) -> Path:
    """A file of that name that somebody else wrote."""
    file.write_bytes(b"no database" * 100)
    return file


async def test_a_journal_that_is_none_is_told(no_journal: Path, broker: Broker) -> None:
    with pytest.raises(FacetmeshError, match="not a database"):
        async with opened(no_journal, broker, Metrics.create()):
            pass
