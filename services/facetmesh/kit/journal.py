"""Audit events on this machine's disk, from where they are published: what they record may be answered at once.

For where that disk is as good as the broker's (ADR 36). A call waits for a commit, not for the way to the broker and
back, and a publish serves all calls of a moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from facetmesh.kit.dapr import Outgoing
from facetmesh.kit.dapr.calls import check_size
from facetmesh.kit.errors import FacetmeshError, FailedPrecondition, Unavailable
from facetmesh.kit.logs import describe
from facetmesh.kit.store import Store, StoreError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence
    from pathlib import Path

    from facetmesh.kit.audit import Publisher
    from facetmesh.kit.telemetry import Metrics

_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    topic TEXT NOT NULL,
    type TEXT NOT NULL,
    id TEXT NOT NULL,
    data BLOB NOT NULL,
    trace TEXT NOT NULL
);
"""
_COMPANY_S = 0.1
"""How long an event waits for others that are published with it."""
_LARGEST_BATCH = 256
_MOST_WAITING = 8192
_GRACE_S = 5.0
"""How long an event may wait to be published before new ones are refused."""
_LONGEST_PAUSE_S = 1.0
_CLOSING_S = 5.0
_log = logging.getLogger(__name__)


_Row = tuple[int, str, str, str, bytes, str]
"""seq, topic, type, id, data and trace of an event."""


class _Entry(NamedTuple):
    """An event that is on the disk and not yet published."""

    seq: int
    topic: str
    type: str
    event: Outgoing
    since: float
    """When it was taken, by the monotonic clock, in seconds."""


class Journal:
    """A publisher that has taken an event once it is on the disk, and publishes it soon after.

    What a process has left there, its next one publishes. An event may be published twice; its id tells.

    Args:
        store: Where they are kept.
        publisher: Where they go.
        metrics: What is counted.
    """

    def __init__(self, store: Store, publisher: Publisher, metrics: Metrics) -> None:
        self._store = store
        self._publisher = publisher
        self._metrics = metrics
        self._waiting: deque[_Entry] = deque()
        self._some = asyncio.Event()
        self._none = asyncio.Event()
        self._none.set()

    async def publish_many(
        self, topic: str, events: Sequence[Outgoing], *, type: str  # noqa: A002 - CloudEvents' own name
    ) -> list[str]:
        """Returns once the events are on the disk. None is left out.

        Raises:
            Unavailable: None was taken: the broker takes none, or the disk.
            InvalidArgument: An event's data is too large. Once here, it would keep all others from being published.
        """
        for event in events:
            check_size(event.data)
        if self._waiting and time.monotonic() - self._waiting[0].since > _GRACE_S:
            raise Unavailable("The broker takes no events.", reason="AUDIT_UNAVAILABLE", retry_after_s=1)
        if len(self._waiting) + len(events) > _MOST_WAITING:
            raise Unavailable("Too many events wait to be published.", reason="AUDIT_BACKLOG", retry_after_s=1)
        rows = [(topic, type, event.id, event.data, json.dumps(dict(event.trace))) for event in events]
        try:
            first = await self._store.run(_inserting(rows))
        except StoreError as error:
            raise Unavailable(f"The journal: {error}", reason="AUDIT_UNAVAILABLE", retry_after_s=1) from None
        now = time.monotonic()
        self._add(_Entry(seq, topic, type, event, now) for seq, event in enumerate(events, start=first))
        return []

    async def recall(self) -> None:
        """Takes up what the process before has left.

        Raises:
            StoreError: It cannot be read.
        """
        now = time.monotonic()
        self._add(
            _Entry(seq, topic, kind, Outgoing(name, data, json.loads(trace)), now)
            for seq, topic, kind, name, data, trace in await self._store.run(_read)
        )
        if self._waiting:
            _log.info("events of the process before wait to be published", extra={"count": len(self._waiting)})

    async def keep_publishing(self) -> None:
        """Publishes what waits, until it is cancelled."""
        pause_s = _COMPANY_S
        while True:
            await self._some.wait()
            if len(self._waiting) < _LARGEST_BATCH or pause_s > _COMPANY_S:
                await asyncio.sleep(pause_s)
            try:
                await self._publish_first()
            except FacetmeshError as error:
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                _log.warning("events wait to be published", extra={"count": len(self._waiting), **describe(error)})
            else:
                pause_s = _COMPANY_S

    async def emptied(self) -> None:
        """Returns once nothing waits any more."""
        await self._none.wait()

    def _add(self, entries: Iterable[_Entry]) -> None:
        self._waiting.extend(entries)
        self._tell()

    def _tell(self) -> None:
        self._metrics.audit_unpublished.set(len(self._waiting))
        if self._waiting:
            self._some.set()
            self._none.clear()
        else:
            self._some.clear()
            self._none.set()

    async def _publish_first(self) -> None:
        """Publishes what has waited longest, as far as it goes to one topic."""
        first = self._waiting[0]
        oldest = islice(self._waiting, _LARGEST_BATCH)
        batch = [one for one in oldest if (one.topic, one.type) == (first.topic, first.type)]
        refused = set(await self._publisher.publish_many(first.topic, [one.event for one in batch], type=first.type))
        done = {one.seq for one in batch if one.event.id not in refused}
        self._waiting = deque(one for one in self._waiting if one.seq not in done)
        self._tell()
        try:
            await self._store.run(_deleting(done))
        except StoreError as error:  # the next process publishes them again: consumers know them by their ids
            _log.warning("published events could not be deleted", extra={"detail": str(error), "count": len(done)})
        if refused:
            raise Unavailable("The broker refused events.", reason="AUDIT_UNAVAILABLE", retry_after_s=1)


@contextlib.asynccontextmanager
async def opened(file: Path, publisher: Publisher, metrics: Metrics) -> AsyncIterator[Journal]:
    """A journal in a file of this process's own. On leaving, what waits is published, as far as some seconds allow.

    Raises:
        FailedPrecondition: JOURNAL_UNUSABLE: another process has the file open, or it cannot be opened or read.
    """
    async with contextlib.AsyncExitStack() as stack:
        try:
            store = stack.enter_context(contextlib.closing(Store(file, _SCHEMA)))
            journal = Journal(store, publisher, metrics)
            await journal.recall()
        except (StoreError, OSError) as error:
            raise FailedPrecondition(f"The journal of audit events: {error}", reason="JOURNAL_UNUSABLE") from None
        publishing = asyncio.create_task(journal.keep_publishing())
        try:
            yield journal
        finally:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(journal.emptied(), _CLOSING_S)
            publishing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await publishing


def _read(connection: sqlite3.Connection) -> list[_Row]:
    return connection.execute("SELECT seq, topic, type, id, data, trace FROM events ORDER BY seq").fetchall()


def _inserting(rows: Sequence[tuple[str, str, str, bytes, str]]) -> Callable[[sqlite3.Connection], int]:
    """Writes rows; returns the number of the first, which the others follow."""

    def insert(connection: sqlite3.Connection) -> int:
        connection.executemany("INSERT INTO events (topic, type, id, data, trace) VALUES (?, ?, ?, ?, ?)", rows)
        (last,) = connection.execute("SELECT last_insert_rowid()").fetchone()
        return int(last) - len(rows) + 1

    return insert


def _deleting(seqs: Iterable[int]) -> Callable[[sqlite3.Connection], object]:
    return lambda connection: connection.executemany("DELETE FROM events WHERE seq = ?", [(seq,) for seq in seqs])
