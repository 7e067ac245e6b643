"""The log: events in, each exactly once; a signed checkpoint after each commit.

What arrives is at least once, what is logged is once: an event is acknowledged
only after the commit, and a repeat is recognised by its id. A checkpoint is
signed only for what is committed, so that no crash can make the log deny one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol
from weakref import WeakValueDictionary

from facetmesh.audit.intake import Event, Intake, Refusal
from facetmesh.audit.records import PLATFORM, Row
from facetmesh.kit.errors import InvalidArgument, Unavailable
from facetmesh.verify.entry import SALT_BYTES, entry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from facetmesh.audit.note import LogSigner
    from facetmesh.audit.records import Appended, Head, Sealer, Stored

ANOTHER_REPLICA_S = 0.5
"""How often the store is asked whether another replica has logged something, while somebody waits for it."""


class LogStore(Protocol):
    """Where the log is kept. Every method raises Unavailable when the store does not work."""

    async def head(self) -> Head:
        """The log as it is."""
        ...

    async def size(self) -> int:
        """How many entries it has."""
        ...

    async def append(self, rows: Sequence[Row]) -> Appended:
        """Stores the rows whose ids are new, all or none, durably."""
        ...

    async def find(self, event_id: str) -> Stored | None:
        """The event with this id; None when there is none, or its body has expired."""
        ...

    async def inclusion(self, index: int, size: int) -> list[bytes]:
        """RFC 6962's inclusion proof."""
        ...

    async def consistency(self, old_size: int, new_size: int) -> list[bytes]:
        """RFC 6962's consistency proof."""
        ...


@dataclass(frozen=True, slots=True)
class _Waiting:
    """Rows that wait for the transaction before theirs to end."""

    rows: Sequence[Row]
    reused: asyncio.Future[frozenset[bytes]]
    """The digests of those whose ids stand for other events, once they are stored."""

    def succeed(self, reused: frozenset[bytes]) -> None:
        """Says that they are stored."""
        if not self.reused.done():
            self.reused.set_result(reused)

    def fail(self, error: BaseException) -> None:
        """Says why they are not, as far as is known."""
        if self.reused.done():
            return
        if not isinstance(error, Exception):  # it is another's task that was cancelled, not this one's
            error = Unavailable("The events were not logged now.", reason="LOG_STORE_UNAVAILABLE", retry_after_s=1)
        self.reused.set_exception(error)
        self.reused.exception()  # who was cancelled while waiting does not look


class Log:
    """The log. `open` makes one.

    Args:
        store: Where it is kept.
        sealer: Encrypts the events.
        signer: The log's key.
        intake: What reads events.
        head: The log as the store has it.
    """

    def __init__(self, store: LogStore, sealer: Sealer, signer: LogSigner, intake: Intake, head: Head) -> None:
        self._store = store
        self._sealer = sealer
        self._signer = signer
        self._intake = intake
        self._head = head
        self._checkpoint = signer.checkpoint(head.size, head.root)
        self._appending = asyncio.Lock()
        self._waiting: list[_Waiting] = []
        self._growth = asyncio.Event()
        self._closed = False
        self._arrivals: WeakValueDictionary[str, asyncio.Event] = WeakValueDictionary()

    @classmethod
    async def open(cls, store: LogStore, sealer: Sealer, signer: LogSigner, intake: Intake) -> Log:
        """The log in a store.

        Raises:
            Unavailable: The store does not work.
        """
        return cls(store, sealer, signer, intake, await store.head())

    @property
    def head(self) -> Head:
        """The log's size and root hash, as the newest checkpoint has them."""
        return self._head

    @property
    def checkpoint(self) -> str:
        """The newest checkpoint: a signed note."""
        return self._checkpoint

    @property
    def verifier_key(self) -> str:
        """What verifies the checkpoint, as name+hash+key."""
        return str(self._signer.verifier)

    async def ingest(self, messages: Sequence[bytes]) -> list[Refusal | None]:
        """Takes in what pub/sub brought.

        Args:
            messages: Serialized SignedEvents, which nobody has checked yet.

        Returns:
            For each message why it will never be logged, or None: it is in the log, durably.

        Raises:
            Unavailable: None was taken in; the same messages may come again.
        """
        # In a thread, because a signature takes 0.1 ms to check, without Python's lock.
        read = await asyncio.to_thread(lambda: [self._intake.read(message) for message in messages])
        reused = await self._append([event for event in read if isinstance(event, Event)])
        return [_verdict(event, reused) for event in read]

    async def announce(self, announcement: bytes) -> None:
        """Takes in the announcement of a service's key, unless it is there.

        Raises:
            Unavailable: The store does not work.
        """
        await self._append([self._intake.read_own(announcement)])

    async def find(self, event_id: str, *, wait_s: float = 0) -> Stored | None:
        """The event with this id, for which the log waits when it is not there yet; None when it did not come."""
        arrival = self._arrivals.setdefault(event_id, asyncio.Event())
        deadline = asyncio.get_running_loop().time() + wait_s
        while True:
            arrived = arrival.is_set()
            stored = await self._store.find(event_id)
            left_s = deadline - asyncio.get_running_loop().time()
            if stored is not None or arrived or left_s <= 0:
                break
            # Another replica may log it, which tells nobody here: so it is asked for again now and then.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(arrival.wait(), min(left_s, ANOTHER_REPLICA_S))
        if stored is not None and stored.index >= self._head.size:
            await self.refresh()
        return stored

    async def refresh(self) -> None:
        """Takes in what other replicas have logged.

        Raises:
            Unavailable: The store does not work.
            Internal: It was changed.
        """
        if await self._store.size() > self._head.size:
            self._advance(await self._store.head())

    def close(self) -> None:
        """Ends all waiting for growth: the process is about to end."""
        self._closed = True
        self._growth.set()

    async def grown(self, size: int) -> None:
        """Returns once the log has more than this many entries.

        Raises:
            Unavailable: The store does not work, or the process is about to end.
        """
        while self._head.size <= size:
            if self._closed:
                raise Unavailable("The service is about to end: go on with another.", retry_after_s=1)
            growth = self._growth
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(growth.wait(), ANOTHER_REPLICA_S)
            await self.refresh()

    async def inclusion(self, index: int, size: int) -> list[bytes]:
        """RFC 6962's proof that the entry at index is in the log of the first `size` entries.

        Raises:
            InvalidArgument: The log does not have, or never had, this size, or this entry within it.
        """
        if size > self._head.size:
            await self.refresh()
        if not 0 <= index < size <= self._head.size:
            raise InvalidArgument(
                f"Index and size must satisfy 0 <= index < size <= {self._head.size}.", reason="SIZE_OUT_OF_RANGE"
            )
        return await self._store.inclusion(index, size)

    async def consistency(self, old_size: int, new_size: int) -> list[bytes]:
        """RFC 6962's proof that the log of new_size entries continues that of old_size.

        Raises:
            InvalidArgument: The log does not have, or never had, these sizes.
        """
        if new_size > self._head.size:
            await self.refresh()
        if not 0 < old_size <= new_size <= self._head.size:
            raise InvalidArgument(
                f"Sizes must satisfy 1 <= old_size <= new_size <= {self._head.size}.", reason="SIZE_OUT_OF_RANGE"
            )
        return await self._store.consistency(old_size, new_size)

    async def _append(self, events: Sequence[Event]) -> frozenset[bytes]:
        """Logs events; returns the digests of those whose ids stand for others."""
        if not events:
            return frozenset()
        rows = [await self._row(event) for event in events]
        waiting = _Waiting(rows, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        async with self._appending:
            if not waiting.reused.done():  # else whoever was here before has taken them along
                await self._append_waiting()
        reused = await waiting.reused
        for row in rows:
            arrival = self._arrivals.get(row.id)
            if arrival is not None:
                arrival.set()
        return reused

    async def _append_waiting(self) -> None:
        """Appends the rows of all who wait in one transaction: what came meanwhile shares its cost."""
        batch, self._waiting = self._waiting, []
        try:
            appended = await self._store.append([row for one in batch for row in one.rows])
        except BaseException as error:
            for one in batch:
                one.fail(error)
            raise
        self._advance(appended.head)
        for one in batch:
            one.succeed(appended.reused)

    def _advance(self, head: Head) -> None:
        if head.size <= self._head.size:
            return
        self._checkpoint = self._signer.checkpoint(head.size, head.root)
        self._head = head
        self._growth.set()
        self._growth = asyncio.Event()

    async def _row(self, event: Event) -> Row:
        salt = os.urandom(SALT_BYTES)
        sealed = await self._sealer.encrypt(event.tenant or PLATFORM, salt + event.data, aad=event.id.encode())
        return Row(
            id=event.id, tenant=event.tenant, time_us=event.time_us, digest=event.digest,
            entry=entry(salt, event.data), sealed=sealed,
        )


def _verdict(event: Event | Refusal, reused: frozenset[bytes]) -> Refusal | None:
    if isinstance(event, Refusal):
        return event
    if reused and event.digest in reused:
        return Refusal("EVENT_ID_REUSED", f"The id {event.id} stands for another event.")
    return None
