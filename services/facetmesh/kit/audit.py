"""The record of each use: filled while the work is done, signed, and handed to pub/sub before the answer leaves."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Protocol

from facetmesh.event.v1 import event_pb2
from facetmesh.kit import telemetry
from facetmesh.kit.errors import FacetmeshError, Internal, Unavailable
from facetmesh.kit.eventids import new_event_id
from facetmesh.kit.outbox import Outbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence
    from contextlib import AbstractContextManager

    from facetmesh.kit.dapr import Outgoing
    from facetmesh.kit.refusals import Refusals
    from facetmesh.kit.signing import EventSigner
    from facetmesh.kit.telemetry import Metrics

TOPIC = "audit.events"
EVENT_TYPE = "facetmesh.event.v1.SignedEvent"
_SALT_BYTES = 16
_TENANT = re.compile(r"tenants/[a-z][a-z0-9-]{1,38}[a-z0-9](?![^/])")
_LONGEST_NAME = 512
_FOLDING_S = 5.0
"""How long refusals that are alike are gathered."""
_REFUSALS = frozenset({
    "INVALID_ARGUMENT", "UNAUTHENTICATED", "PERMISSION_DENIED", "NOT_FOUND", "ALREADY_EXISTS", "FAILED_PRECONDITION",
    "RESOURCE_EXHAUSTED", "UNIMPLEMENTED",
})  # fmt: skip


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
    queued_s: float = 0.0
    """How long its work waited for its turn, in seconds."""
    told: bool = False
    """Whether an event was made of it."""

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


def queued(seconds: float) -> None:
    """Notes how long work of the RPC that is being served waited for its turn; of no RPC, nothing."""
    record = _current.get()
    if record is not None:
        record.queued_s = max(record.queued_s, seconds)


def set_current(record: Record | None) -> None:
    """Makes record the current one for the rest of this task."""
    _current.set(record)


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
        self._service = signer.service
        self._outbox = Outbox(signer, partial(publisher.publish_many, TOPIC, type=EVENT_TYPE), metrics, limit=limit)
        self._metrics = metrics
        self._refusals = refusals
        self._folding: asyncio.TimerHandle | None = None
        self._clock = clock

    async def accept(self, record: Record, error: FacetmeshError | None = None) -> None:
        """Returns once the record's event has been accepted: it is durable and will reach the log.

        Raises:
            Unavailable: It was not. What the record is about must not be answered.
        """
        await asyncio.shield(self._put(record, error))

    def expecting(self, tenant: str) -> AbstractContextManager[None]:
        """For the length of a call of the tenant whose event will be accepted: with more, more share a publish."""
        return self._outbox.expecting(tenant)

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
            future = self._put(record, error, idle=True)
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
        await self._outbox.close()

    def _unfold(self) -> None:
        if self._folding is not None:
            self._folding.cancel()
            self._folding = None
        if self._refusals is not None:
            for record, error in self._refusals.folded():
                self._offer(record, error)

    def _put(self, record: Record, error: FacetmeshError | None, *, idle: bool = False) -> asyncio.Future[None]:
        return self._outbox.put(self._event(record, error), queued_s=record.queued_s, idle=idle)

    def _event(self, record: Record, error: FacetmeshError | None) -> event_pb2.AuditEvent:
        salt = os.urandom(_SALT_BYTES)
        # What a call ended with after its answer was accounted for is an event of its own: the log has one for each id.
        event_id = new_event_id() if record.told else record.id
        record.told = True
        event = event_pb2.AuditEvent(
            id=event_id, service=self._service, method=record.method, tenant=record.tenant,
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

    def _count_lost(self, future: asyncio.Future[None]) -> None:
        if not future.cancelled() and future.exception() is not None:
            self._metrics.audit_dropped.inc()
