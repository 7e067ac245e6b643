"""The record of each use: filled while the work is done, signed, and handed to pub/sub before the answer leaves.

Events of all calls in progress share one bulk publish: while one is on its way,
the next ones gather. A call waits for its own event only.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import re
import time
from collections import deque
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

from facetmesh.event.v1 import event_pb2
from facetmesh.kit import telemetry
from facetmesh.kit.dapr import Outgoing
from facetmesh.kit.errors import FacetmeshError, Internal, Unavailable
from facetmesh.kit.eventids import new_event_id
from facetmesh.kit.logs import describe

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence

    from facetmesh.kit.refusals import Refusals
    from facetmesh.kit.signing import EventSigner
    from facetmesh.kit.telemetry import Metrics

TOPIC = "audit.events"
EVENT_TYPE = "facetmesh.event.v1.SignedEvent"
_SALT_BYTES = 16
_TENANT = re.compile(r"tenants/[a-z][a-z0-9-]{1,38}[a-z0-9](?![^/])")
_LONGEST_NAME = 512
_LARGEST_BATCH = 256
_FOLDING_S = 5.0
"""How long refusals that are alike are gathered."""
# A bulk publish costs about as much as a single one: with many calls at work, the first waits for a quarter of
# them, but no longer than a quarter of what it took anyway.
_LINGER_SHARE = 4
_LONGEST_LINGER_S = 0.1
_REFUSALS = frozenset({
    "INVALID_ARGUMENT", "UNAUTHENTICATED", "PERMISSION_DENIED", "NOT_FOUND", "ALREADY_EXISTS", "FAILED_PRECONDITION",
    "RESOURCE_EXHAUSTED", "UNIMPLEMENTED",
})  # fmt: skip

_log = logging.getLogger(__name__)


class Publisher(Protocol):
    """Where events go."""

    async def publish_many(
        self, topic: str, events: Sequence[Outgoing], *, type: str  # noqa: A002 - CloudEvents' own name
    ) -> list[str]:
        """Publishes events; returns the ids that were not accepted."""
        ...


@dataclass(slots=True)
class Record:
    """One use, while it happens."""

    method: str
    """The full gRPC method, or a name such as facetmesh.fusion/fuse."""
    tenant: str = ""
    """tenants/{tenant}; empty for the platform."""
    subject: str = ""
    """Who is behind it."""
    source_address: str = ""
    """The caller's address."""
    id: str = field(default_factory=new_event_id)
    """32 hex characters; the receipt is named after it."""
    resource: str = ""
    model_version: str = ""
    model_sha256: str = ""
    inputs: tuple[bytes, ...] = ()
    output: bytes = b""
    roles: tuple[str, ...] = ()
    deciding_policies: tuple[str, ...] = ()
    """What decided that the call may be worked on, or that it may not."""
    grounds: tuple[str, ...] = ()
    """What a decision that no person took rests on."""
    count: int = 1
    """How many calls it stands for."""
    started: float = field(default_factory=time.perf_counter)

    @property
    def receipt(self) -> str:
        """The receipt's resource name."""
        return f"{self.tenant}/receipts/{self.id}"

    def identify(self, *, subject: str, tenant: str, roles: Iterable[str] = ()) -> None:
        """Says who is behind a call."""
        self.subject, self.tenant, self.roles = subject, tenant, tuple(sorted(roles))

    def concerns(self, names: Sequence[str]) -> None:
        """Takes the resources that the request names: what the platform does to a tenant is that tenant's event.

        They are not validated yet. Of a hostile name what can be recorded is kept, so
        that nobody can keep a refusal out of the log by what he asks for.
        """
        name = names[0][:_LONGEST_NAME] if names else ""
        self.resource = name if name.isprintable() else "".join(c if c.isprintable() else "\ufffd" for c in name)
        match = _TENANT.match(self.resource)
        if match and not self.tenant:
            self.tenant = match[0]

    def describe(
        self,
        *,
        resource: str | None = None,
        model_version: str | None = None,
        model_sha256: str | None = None,
        inputs: Sequence[bytes] | None = None,
        output: bytes | None = None,
    ) -> None:
        """Adds what is known. Inputs and output are SHA-256 digests; they are salted before they are recorded."""
        self.resource = self.resource if resource is None else resource
        self.model_version = self.model_version if model_version is None else model_version
        self.model_sha256 = self.model_sha256 if model_sha256 is None else model_sha256
        self.inputs = self.inputs if inputs is None else tuple(inputs)
        self.output = self.output if output is None else output


_current: ContextVar[Record | None] = ContextVar("audit_record", default=None)


def current() -> Record:
    """The record of the RPC that is being served."""
    record = _current.get()
    if record is None:
        raise Internal("there is no audit record outside of an RPC")
    return record


def set_current(record: Record | None) -> None:
    """Makes record the current one for the rest of this task."""
    _current.set(record)


class _Waiting(NamedTuple):
    """An event that waits to be published with others."""

    event: event_pb2.AuditEvent
    trace: Mapping[str, str]
    """The W3C headers of the trace that it belongs to."""
    accepted: asyncio.Future[None]
    linger_s: float
    """How long it may wait for others."""


class Recorder:
    """Turns records into signed events and gets them accepted.

    Args:
        region: Where the work is done.
        signer: The key of the service that does it.
        publisher: Where events go.
        metrics: What is counted.
        refusals: Watches the refusals that are offered; nobody when None.
        limit: How many events may wait before new ones are refused.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        region: str,
        signer: EventSigner,
        publisher: Publisher,
        metrics: Metrics,
        *,
        refusals: Refusals | None = None,
        limit: int = 8192,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._region = region
        self._signer = signer
        self._publisher = publisher
        self._metrics = metrics
        self._refusals = refusals
        self._folding: asyncio.TimerHandle | None = None
        self._limit = limit
        self._clock = clock
        self._waiting: deque[_Waiting] = deque()
        self._some = asyncio.Event()
        self._enough = asyncio.Event()
        self._coming = 0
        self._task: asyncio.Task[None] | None = None

    async def accept(self, record: Record, error: FacetmeshError | None = None) -> None:
        """Returns once the record's event has been accepted: it is durable and will reach the log.

        Raises:
            Unavailable: It was not. What the record is about must not be answered.
        """
        await asyncio.shield(self._enqueue(record, error))

    @contextlib.contextmanager
    def expecting(self) -> Iterator[None]:
        """For the length of a call that will have its event accepted: the more there are, the more share a publish."""
        self._coming += 1
        try:
            yield
        finally:
            self._coming -= 1

    def offer(self, record: Record, error: FacetmeshError | None = None) -> None:
        """Publishes the record's event in the background: for refusals, which go out either way.

        In a flood of refusals, those alike become one event with their count, a few seconds later.
        """
        if error is not None and self._refusals is not None and not self._refusals.admit(record, error):
            if self._folding is None:
                self._folding = asyncio.get_running_loop().call_later(_FOLDING_S, self._unfold)
            return
        self._offer(record, error)

    def _offer(self, record: Record, error: FacetmeshError | None) -> None:
        try:
            future = self._enqueue(record, error)
        except Unavailable:
            self._metrics.audit_dropped.inc()
            return
        future.add_done_callback(self._count_lost)

    @contextlib.asynccontextmanager
    async def record(
        self, *, method: str, tenant: str, subject: str, event_id: str | None = None
    ) -> AsyncIterator[Record]:
        """Records work that no RPC covers. On leaving, the event has been accepted.

        An error that leaves the block is recorded as the outcome and goes on. An event_id, one of
        `new_event_id`, is given by who must name the receipt before.
        """
        record = Record(method, tenant, subject, id=event_id or new_event_id())
        try:
            yield record
        except FacetmeshError as error:
            await self.accept(record, error)
            raise
        except Exception as error:
            await self.accept(record, Internal(type(error).__name__))
            raise
        await self.accept(record)

    async def close(self) -> None:
        """Sends what waits, then ends."""
        self._unfold()
        deadline = time.monotonic() + 5
        while self._waiting and self._task is not None and not self._task.done() and time.monotonic() < deadline:
            await asyncio.wait([self._waiting[-1].accepted], timeout=deadline - time.monotonic())
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def _unfold(self) -> None:
        if self._folding is not None:
            self._folding.cancel()
            self._folding = None
        if self._refusals is not None:
            for record, error in self._refusals.folded():
                self._offer(record, error)

    def _enqueue(self, record: Record, error: FacetmeshError | None) -> asyncio.Future[None]:
        if len(self._waiting) >= self._limit:
            raise Unavailable("Too many uses wait to be recorded.", reason="AUDIT_BACKLOG", retry_after_s=1)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._publish())
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        linger_s = min((time.perf_counter() - record.started) / _LINGER_SHARE, _LONGEST_LINGER_S)
        self._waiting.append(_Waiting(self._event(record, error), telemetry.carrier(), future, linger_s))
        self._metrics.audit_pending.set(len(self._waiting))
        self._some.set()
        if self._gathered():
            self._enough.set()
        return future

    def _gathered(self) -> bool:
        return len(self._waiting) * _LINGER_SHARE >= min(self._coming, _LARGEST_BATCH)

    def _event(self, record: Record, error: FacetmeshError | None) -> event_pb2.AuditEvent:
        salt = os.urandom(_SALT_BYTES)
        event = event_pb2.AuditEvent(
            id=record.id, service=self._signer.service, method=record.method, tenant=record.tenant,
            subject=record.subject, source_address=record.source_address, resource=record.resource,
            model_version=record.model_version, model_sha256=record.model_sha256, region=self._region, code="OK",
            content_salt=salt, outcome=event_pb2.AuditEvent.OUTCOME_OK, trace_id=telemetry.trace_id(),
            input_hashes=[hashlib.sha256(salt + digest).digest() for digest in record.inputs],
            roles=record.roles, deciding_policies=record.deciding_policies, grounds=record.grounds,
        )
        event.time.FromNanoseconds(int(self._clock() * 1e9))
        event.duration.FromNanoseconds(int((time.perf_counter() - record.started) * 1e9))
        if record.count > 1:
            event.count = record.count
        if record.output:
            event.output_hash = hashlib.sha256(salt + record.output).digest()
        if error is not None:
            event.code, event.reason = error.code, error.reason
            event.outcome = (
                event_pb2.AuditEvent.OUTCOME_REFUSED
                if error.code in _REFUSALS
                else event_pb2.AuditEvent.OUTCOME_FAILED
            )
        return event

    async def _publish(self) -> None:
        while True:
            await self._some.wait()
            if not self._gathered():
                self._enough.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._waiting[0].linger_s):
                        await self._enough.wait()
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), _LARGEST_BATCH))]
            if not self._waiting:
                self._some.clear()
            if batch:
                await self._publish_batch(batch)
            self._metrics.audit_pending.set(len(self._waiting))

    async def _publish_batch(self, batch: Sequence[_Waiting]) -> None:
        refused: set[str] = set()
        try:
            signed = self._signer.sign_many([one.event for one in batch])
            events = [Outgoing(one.event.id, data, one.trace) for one, data in zip(batch, signed, strict=True)]
            refused.update(await self._publisher.publish_many(TOPIC, events, type=EVENT_TYPE))
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

    def _count_lost(self, future: asyncio.Future[None]) -> None:
        if not future.cancelled() and future.exception() is not None:
            self._metrics.audit_dropped.inc()
