"""The messages of one topic for one app: all on the disk, the next ones in memory.

Being worked on is known in memory only: a sidecar that starts again delivers
everything again that was not settled. That is at-least-once delivery.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import json
import logging
import math
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from facetmesh.kit.store import StoreError
from facetmesh.sidecar.events import Message

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Sequence

    from facetmesh.kit.store import Store

SCHEMA = """
CREATE TABLE IF NOT EXISTS messages (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    pubsub TEXT NOT NULL,
    app TEXT NOT NULL, -- who is to get it; '' while nobody subscribes to the topic
    topic TEXT NOT NULL,
    data BLOB NOT NULL,
    metadata TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS messages_queue ON messages (pubsub, app, topic, seq);
"""
NOBODY = ""
"""The app of messages to whose topic nobody subscribes."""

_LARGEST_WINDOW = 1000
_LARGEST_WINDOW_BYTES = 16 << 20
_LARGEST_BATCH_BYTES = 2 << 20
_RETRY_STORE_S = 1.0
_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Pending:
    """A message that is not yet settled."""

    seq: int
    message: Message
    failures: int = 0
    """How often the app could not handle it."""
    deaths: int = 0
    """How often the app died over it, or seemed to."""


@dataclass(frozen=True, slots=True)
class QueueName:
    """Whose messages of which topic."""

    pubsub: str
    app: str
    topic: str


def insert(connection: sqlite3.Connection, queues: Sequence[QueueName], messages: Iterable[Message]) -> None:
    """Adds messages to each of the queues."""
    connection.executemany(
        "INSERT INTO messages (pubsub, app, topic, data, metadata) VALUES (?, ?, ?, ?, ?)",
        [
            (name.pubsub, name.app, name.topic, message.data, json.dumps(dict(message.metadata)))
            for message in messages
            for name in queues
        ],
    )


def delete(connection: sqlite3.Connection, seqs: Iterable[int]) -> None:
    """Forgets messages."""
    connection.executemany("DELETE FROM messages WHERE seq = ?", [(seq,) for seq in seqs])


class Queue:
    """One app's messages of one topic.

    Args:
        store: Where they lie; its schema includes SCHEMA.
        name: Which they are.
    """

    def __init__(self, store: Store, name: QueueName) -> None:
        self.name = name
        self._store = store
        self._ready: deque[Pending] = deque()
        self._taken = -math.inf
        """When the last batch was handed out."""
        self._later: list[tuple[float, int, Pending]] = []
        self._window: dict[int, int] = {}
        """The size of each message that is in memory, in bytes."""
        self._window_bytes = 0
        self._cursor = 0
        """All messages up to this one have been loaded."""
        self._more = True
        """Whether there may be some beyond."""
        self._arrived = 0
        """How many were added since the last look, at least."""
        self._wanted = 0
        """How many of those make the batch full for which somebody waits."""
        self._behind = False
        """Whether the last look left some on the disk: who is behind waits for nobody."""
        self._changed = asyncio.Event()
        self._taking = asyncio.Lock()
        self._settled: set[int] = set()
        self._settling = asyncio.Lock()

    def arrived(self, count: int) -> None:
        """Tells that messages were added."""
        self._arrived += count
        # Whoever knows of some and waits for company is woken when it is there, not by each that comes.
        if not self._more or self._arrived >= self._wanted:
            self._changed.set()
        self._more = True

    async def take(self, most: int, patience_s: float = 0.0) -> list[Pending]:
        """Waits for messages, and hands out the next ones.

        After a pause the first goes at once; in a stream of them many share a batch. Of several who take, one
        waits for messages and the others for their turn: all of them would look at each message that arrives.

        Args:
            most: At most so many.
            patience_s: How long after a batch the next one waits for more, unless it is full.
        """
        async with self._taking:
            while True:
                self._changed.clear()
                now = time.monotonic()
                self._wake(now)
                wait_s: float | None = None
                if self._ready or self._loadable():
                    wait_s = self._taken + patience_s - now
                    if wait_s <= 0 or self._behind or len(self._ready) + self._arrived >= most:
                        if self._loadable() and len(self._ready) < most:
                            await self._load()
                        if self._ready:
                            return self._next(most)
                        continue
                elif self._later:
                    wait_s = self._later[0][0] - now
                self._wanted = most - len(self._ready)
                try:
                    async with asyncio.timeout(wait_s):
                        await self._changed.wait()
                except TimeoutError:
                    continue

    def put_back(self, messages: Sequence[Pending]) -> None:
        """Takes back messages that could not even be tried: they are the next again."""
        self._ready.extendleft(reversed(messages))
        self._changed.set()

    def put_off(self, message: Pending, delay_s: float) -> None:
        """Takes a message back for another try after so many seconds."""
        heapq.heappush(self._later, (time.monotonic() + delay_s, message.seq, message))
        self._changed.set()

    async def done(self, messages: Iterable[Pending]) -> None:
        """Settles messages: they will not be delivered again.

        Where the disk cannot be written they stay on it, and may be delivered again by the next process.
        """
        for message in messages:
            self._settled.add(message.seq)
            self._forget(message)
        self._changed.set()
        async with self._settling:  # whoever waits here finds that the one before has taken its messages along
            if not self._settled:
                return
            seqs, self._settled = self._settled, set()
            try:
                await self._store.run(lambda connection: delete(connection, seqs))
            except StoreError as error:
                self._settled |= seqs
                _log.warning("handled messages could not be deleted", extra={"detail": str(error), "count": len(seqs)})

    async def move(self, message: Pending, targets: Sequence[QueueName], changed: Message) -> None:
        """Settles a message by handing it to other queues, changed, in one step.

        Raises:
            StoreError: It could not be written; the message is where it was.
        """

        def work(connection: sqlite3.Connection) -> None:
            insert(connection, targets, [changed])
            delete(connection, [message.seq])

        await self._store.run(work)
        self._forget(message)
        self._changed.set()

    def _forget(self, message: Pending) -> None:
        self._window_bytes -= self._window.pop(message.seq, 0)

    def _wake(self, now: float) -> None:
        while self._later and self._later[0][0] <= now:
            self._ready.append(heapq.heappop(self._later)[2])

    def _next(self, most: int) -> list[Pending]:
        batch: list[Pending] = []
        size = 0
        while self._ready and len(batch) < most:
            candidate = self._ready[0]
            size += len(candidate.message.data)
            # What may have killed the app is delivered alone, so that it does not take others along.
            if batch and (size > _LARGEST_BATCH_BYTES or candidate.deaths):
                break
            batch.append(self._ready.popleft())
            if candidate.deaths:
                break
        if not self._ready:  # else it was cut short, and the rest need not wait
            self._taken = time.monotonic()
        return batch

    def _loadable(self) -> bool:
        return self._more and self._has_room()

    def _has_room(self) -> bool:
        return len(self._window) < _LARGEST_WINDOW and self._window_bytes < _LARGEST_WINDOW_BYTES

    async def _load(self) -> None:
        self._more, self._arrived = False, 0  # before the look, so that what arrives during it is not overlooked
        try:
            found, all_of_them = await self._store.run(self._read)
        except StoreError as error:
            _log.error("messages cannot be read", extra={"topic": self.name.topic, "detail": str(error)})
            self._more = True
            await asyncio.sleep(_RETRY_STORE_S)
            return
        self._behind = not all_of_them
        if self._behind:
            self._more = True
        for message in found:
            self._window[message.seq] = len(message.message.data)
            self._window_bytes += len(message.message.data)
        if found:
            self._cursor = found[-1].seq
            self._ready.extend(found)

    def _read(self, connection: sqlite3.Connection) -> tuple[list[Pending], bool]:
        rows = connection.execute(
            "SELECT seq, data, metadata FROM messages"
            " WHERE pubsub = ? AND app = ? AND topic = ? AND seq > ? ORDER BY seq",
            (self.name.pubsub, self.name.app, self.name.topic, self._cursor),
        )
        found: list[Pending] = []
        size = 0
        for seq, data, metadata in itertools.islice(rows, _LARGEST_WINDOW // 2):
            found.append(Pending(seq, Message(data, json.loads(metadata))))
            size += len(data)
            if size > _LARGEST_WINDOW_BYTES // 2:
                break
        complete = next(rows, None) is None
        rows.close()
        return found, complete
