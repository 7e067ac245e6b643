"""Audit events on their way out: those of all calls in progress share one bulk publish.

While one publish is on its way, the next events gather. A call waits for its own event only. Events for which none
waits, such as refusals, go with the others, or together after a moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter, deque
from typing import TYPE_CHECKING, NamedTuple

from facetmesh.kit import telemetry
from facetmesh.kit.dapr import Outgoing
from facetmesh.kit.errors import FacetmeshError, Unavailable
from facetmesh.kit.logs import describe

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

    from facetmesh.event.v1 import event_pb2
    from facetmesh.kit.signing import EventSigner
    from facetmesh.kit.telemetry import Metrics

_LARGEST_BATCH = 256
# A bulk publish costs about as much as a single one, and answers that go together cost less too: of calls that had to
# wait for their turn anyway, the first waits for a quarter of its tenant's, but no longer than a quarter of that time.
# With many it is half: those that come next wait for a core, and get it the sooner.
_SHARE_OF_SOME, _SHARE_OF_MANY = 0.25, 0.5
_SOME = 8
_LONGEST_LINGER_S = 0.1
_CLOSING_S = 5.0
_log = logging.getLogger(__name__)


class _Waiting(NamedTuple):
    """An event that waits to be published with others."""

    event: event_pb2.AuditEvent
    trace: Mapping[str, str]
    """The W3C headers of the trace that it belongs to."""
    accepted: asyncio.Future[None]
    linger_s: float
    """How long it may wait for others."""


class Outbox:
    """Signs events and publishes them, many at once.

    Args:
        signer: The key of the service whose events they are.
        publish: Publishes events in bulk; returns the ids of those that were not accepted.
        metrics: What is counted.
        limit: How many events may wait before new ones are refused.
    """

    def __init__(
        self,
        signer: EventSigner,
        publish: Callable[[Sequence[Outgoing]], Awaitable[list[str]]],
        metrics: Metrics,
        *,
        limit: int,
    ) -> None:
        self._signer = signer
        self._publish = publish
        self._metrics = metrics
        self._limit = limit
        self._waiting: deque[_Waiting] = deque()
        self._idle: deque[_Waiting] = deque()
        """Those for which no call waits."""
        self._hurry: asyncio.TimerHandle | None = None
        self._some = asyncio.Event()
        self._enough = asyncio.Event()
        self._company = _LARGEST_BATCH
        """How many are to wait until they are published."""
        self._coming: Counter[str] = Counter()
        """By tenant: who has few calls does not wait for the many of another."""
        self._task: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def expecting(self, tenant: str) -> Iterator[None]:
        """For the length of a tenant's call that will put an event: the more there are, the more share a publish."""
        self._coming[tenant] += 1
        try:
            yield
        finally:
            self._coming[tenant] -= 1
            if not self._coming[tenant]:
                del self._coming[tenant]

    def put(self, event: event_pb2.AuditEvent, *, queued_s: float = 0.0, idle: bool = False) -> asyncio.Future[None]:
        """Takes an event; what is returned is done once it was accepted, or raises Unavailable.

        Args:
            event: The event.
            queued_s: How long the call that it records waited for its turn, in seconds: it may wait for others in
                proportion.
            idle: No call waits for it.

        Raises:
            Unavailable: AUDIT_BACKLOG: too many wait.
        """
        if len(self._waiting) + len(self._idle) >= self._limit:
            raise Unavailable("Too many uses wait to be recorded.", reason="AUDIT_BACKLOG", retry_after_s=1)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._empty())
        loop = asyncio.get_running_loop()
        accepted: asyncio.Future[None] = loop.create_future()
        if idle:
            self._idle.append(_Waiting(event, telemetry.carrier(), accepted, 0.0))
            if self._hurry is None:
                self._hurry = loop.call_later(_LONGEST_LINGER_S, self._send_idle)
            return accepted
        coming = self._coming[event.tenant]
        share = _SHARE_OF_SOME if coming <= _SOME else _SHARE_OF_MANY
        linger_s = min(queued_s * share, _LONGEST_LINGER_S)
        self._company = min(self._company, int(coming * share))
        self._waiting.append(_Waiting(event, telemetry.carrier(), accepted, linger_s))
        self._count()
        self._some.set()
        if self._gathered():
            self._enough.set()
        return accepted

    async def close(self) -> None:
        """Sends what waits, then ends."""
        deadline = time.monotonic() + _CLOSING_S
        self._send_idle()
        while self._waiting and self._task is not None and not self._task.done() and time.monotonic() < deadline:
            await asyncio.wait([self._waiting[-1].accepted], timeout=deadline - time.monotonic())
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def _send_idle(self) -> None:
        """Has what waits for company go now."""
        if self._hurry is not None:
            self._hurry.cancel()
            self._hurry = None
        if self._idle:
            self._waiting.extend(self._idle)
            self._idle.clear()
            self._company = 0
            self._some.set()
            self._enough.set()

    def _count(self) -> None:
        self._metrics.audit_pending.set(len(self._waiting) + len(self._idle))

    def _gathered(self) -> bool:
        return len(self._waiting) >= self._company

    async def _empty(self) -> None:
        while True:
            await self._some.wait()
            if not self._gathered():
                self._enough.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._waiting[0].linger_s):
                        await self._enough.wait()
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), _LARGEST_BATCH))]
            self._company = 0 if self._waiting else _LARGEST_BATCH
            if not self._waiting:
                self._some.clear()
            room = _LARGEST_BATCH - len(batch)
            batch = [self._idle.popleft() for _ in range(min(len(self._idle), room))] + batch
            if batch:
                await self._send(batch)
            self._count()

    async def _send(self, batch: Sequence[_Waiting]) -> None:
        refused: set[str] = set()
        try:
            signed = self._signer.sign_many([one.event for one in batch])
            events = [Outgoing(one.event.id, data, one.trace) for one, data in zip(batch, signed, strict=True)]
            refused.update(await self._publish(events))
        except FacetmeshError as error:
            _log.warning("audit events were not accepted", extra={"count": len(batch), **describe(error)})
            refused.update(one.event.id for one in batch)
        for one in batch:
            if one.accepted.done():
                continue  # the call was cancelled meanwhile
            if one.event.id in refused:
                one.accepted.set_exception(
                    Unavailable("This use could not be recorded.", reason="AUDIT_UNAVAILABLE", retry_after_s=1)
                )
            else:
                one.accepted.set_result(None)
