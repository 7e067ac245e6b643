"""Operations: the record of each job, which is also its place in the queue.

A worker that takes a job writes its lease into the record, guarded by the record's
etag, so that two never have the same. Whoever loses its lease (it died, or it hung)
loses the job: its later writes are refused by the rules here.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from enum import StrEnum

from facetmesh.fusion.backends import Backend, Model
from facetmesh.fusion.line import Priority, Ticket
from facetmesh.fusion.options import PLAIN, Options
from facetmesh.kit.errors import BY_CODE, Aborted, Cancelled, FacetmeshError, FailedPrecondition, Internal

MAX_FAULTS = 5
"""How many attempts may fail by what may be the job's own doing."""
MAX_INTERRUPTIONS = 20
"""How many may end by what is ours: with the rests between, an outage of some nine minutes."""
LEASE_S = 10.0
"""How long a worker has a job without a sign of life."""
BACKOFF_S = (2.0, 8.0, 15.0, 30.0)
"""How long a job rests after each failed attempt but the last: together longer than a service takes to be back."""
_TIME_DIGITS = 12


class Stage(StrEnum):
    """What is being done with a job, in this order."""

    QUEUED = "queued"
    DETECTING = "detecting"
    FUSING = "fusing"
    STORING = "storing"
    DONE = "done"


PERCENT = {Stage.QUEUED: 0, Stage.DETECTING: 10, Stage.FUSING: 40, Stage.STORING: 80, Stage.DONE: 100}
"""How much of a job is done when a stage begins."""


@dataclass(frozen=True, slots=True, order=True)
class Ref:
    """Which operation."""

    tenant_id: str
    id: str
    """32 hex characters, which sort by the time of creation."""

    @property
    def created_s(self) -> float:
        """When the id was made, in seconds since the epoch."""
        return int(self.id[:_TIME_DIGITS], 16) / 1000

    @classmethod
    def new(cls, tenant_id: str, now: float) -> Ref:
        """A new id: the time in milliseconds, and chance."""
        return cls(tenant_id, f"{int(now * 1000):0{_TIME_DIGITS}x}{secrets.token_hex(10)}")


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be done."""

    source_sha256: str
    """Of the source's file, in hex."""
    target_sha256: str
    """Of the target's file, in hex."""
    face_model: str
    """tenants/{tenant}/models/{model}."""
    source_face_index: int
    """0 is the largest face."""
    target_face_index: int
    """0 is the largest face."""
    consent: str = ""
    """Of whose face is taken: tenants/{tenant}/consents/{consent}; "" where none is asked for."""
    consent_sha256: str = ""
    """What the receipt commits to of it, in hex."""
    priority: Priority = Priority.STANDARD
    """How urgent it is among its tenant's own."""
    options: Options = PLAIN
    """What else was chosen."""
    reference_sha256: str = ""
    """Of the reference's file, in hex; "" where there is none."""

    @property
    def inputs(self) -> list[bytes]:
        """The SHA-256 digests of what goes into it: source, target, the consent, and the reference."""
        digests = (self.source_sha256, self.target_sha256, self.consent_sha256, self.reference_sha256)
        return [bytes.fromhex(one) for one in digests if one]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asked for it."""

    subject: str = ""
    """As tokens name them."""
    traceparent: str = ""
    """The trace of the call, as W3C has it."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a job ended without a result: an error of ours, to be stored."""

    code: str
    reason: str
    message: str
    metadata: dict[str, str]

    @classmethod
    def of(cls, error: FacetmeshError) -> Failure:
        """The error, as it is stored."""
        return cls(error.code, error.reason, error.message, error.metadata)

    def error(self) -> FacetmeshError:
        """The error that was stored."""
        return BY_CODE.get(self.code, Internal)(self.message, reason=self.reason, metadata=self.metadata)


Box = tuple[float, float, float, float]
"""x_min, y_min, x_max, y_max in pixels."""


@dataclass(frozen=True, slots=True)
class LeftFace:
    """A face of the target that was left as it was."""

    box: Box
    reason: str
    """Why, as refusals have it."""


@dataclass(frozen=True, slots=True)
class Fusion:
    """A result."""

    source_face: Box
    """Where the face came from, in the source."""
    target_face: Box
    """Where it was put, in the target."""
    media_type: str
    size_bytes: int
    sha256: str
    """Of the file, in hex."""
    receipt: str
    """tenants/{tenant}/receipts/{receipt}."""
    more_target_faces: tuple[Box, ...] = ()
    """Where else it was put."""
    left_faces: tuple[LeftFace, ...] = ()
    """Which faces of the target would have come out badly."""
    backend: Backend = Backend.MESH
    """What fused."""
    models: tuple[Model, ...] = ()
    """By which models, and under which licences; none in records of before they were noted."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """From where the next attempt goes on."""

    stage: Stage
    """The last one that was finished: DETECTING or FUSING."""
    attempt: int
    """Which attempt kept what came of it."""


@dataclass(frozen=True, slots=True)
class Operation:
    """A job and how far it is. Its result, the fusion, has the same id."""

    tenant_id: str
    id: str
    job: Job
    created_s: float
    """Seconds since the epoch, as all times here."""
    caller: Caller = Caller()
    stage: Stage = Stage.QUEUED
    attempts: int = 0
    """How often the work was begun."""
    faults: int = 0
    """How many of them failed by what may be the job's own doing."""
    owner: str = ""
    """The worker that has it; empty for none."""
    until_s: float = 0.0
    """With an owner, when the lease ends; without, when the job may be taken again."""
    cancelling: bool = False
    """It is to end as soon as nobody works on it."""
    ended_s: float | None = None
    failure: Failure | None = None
    result: Fusion | None = None
    deleted_s: float | None = None
    """When its result was deleted."""
    checkpoint: Checkpoint | None = None
    """From where the next attempt goes on; None where it begins anew, and once the job is done."""
    etag: str = ""
    """Of the stored record; empty for a new one."""

    @property
    def ref(self) -> Ref:
        """Which it is."""
        return Ref(self.tenant_id, self.id)

    @property
    def ticket(self) -> Ticket:
        """Its place in the line."""
        return Ticket(self.ref, self.job.priority)

    @property
    def name(self) -> str:
        """The resource name."""
        return f"tenants/{self.tenant_id}/operations/{self.id}"

    @property
    def fusion_name(self) -> str:
        """The resource name of the fusion that it makes."""
        return f"tenants/{self.tenant_id}/fusions/{self.id}"

    @property
    def done(self) -> bool:
        """Whether it ended, with a result or a failure."""
        return self.stage is Stage.DONE

    @property
    def interruptions(self) -> int:
        """How many attempts ended by what is ours, such as a worker's death; the present one counts until it ends."""
        return self.attempts - self.faults

    @property
    def percent(self) -> int:
        """How much is done, 0 to 100."""
        return PERCENT[self.stage]

    def claimable(self, now: float) -> bool:
        """Whether a worker may take it."""
        return not self.done and now >= self.until_s

    def claim(self, owner: str, now: float) -> Operation:
        """Taken by a worker.

        Raises:
            Aborted: It is done, or somebody else has it.
        """
        if not self.claimable(now):
            raise Aborted("Somebody else has the job.", reason="LEASE_TAKEN")
        stage = Stage.DETECTING if self.checkpoint is None else Stage.FUSING
        return replace(self, owner=owner, until_s=now + LEASE_S, attempts=self.attempts + 1, stage=stage)

    def advance(self, attempt: Operation, now: float, stage: Stage | None = None) -> Operation:
        """A sign of life of the worker that made this attempt, and perhaps the next stage.

        Raises:
            Aborted: The worker has lost the job.
        """
        self._check(attempt)
        return replace(self, stage=stage or self.stage, until_s=now + LEASE_S)

    def reach(self, attempt: Operation, now: float, finished: Stage) -> Operation:
        """With a stage behind it whose outcome the attempt has kept.

        Raises:
            Aborted: The worker has lost the job.
        """
        advanced = self.advance(attempt, now, Stage.FUSING)
        return replace(advanced, checkpoint=Checkpoint(finished, attempt.attempts))

    def release(self, attempt: Operation, now: float, *, at_fault: bool) -> Operation:
        """Back in the queue, to be tried again after a rest.

        Args:
            attempt: What ends so.
            now: The time.
            at_fault: Whether the job itself may have made it fail.

        Raises:
            Aborted: The worker has lost the job.
        """
        self._check(attempt)
        rest = BACKOFF_S[min(self.attempts, len(BACKOFF_S)) - 1]
        return replace(self, stage=Stage.QUEUED, owner="", until_s=now + rest, faults=self.faults + at_fault)

    def finish(self, attempt: Operation, now: float, outcome: Fusion | FacetmeshError) -> Operation:
        """Done, with a result or an error.

        Raises:
            Aborted: The worker has lost the job.
        """
        self._check(attempt)
        return self._ended(now, outcome)

    def cancel(self, now: float) -> Operation:
        """Cancelled, unless it is done, or its result is already being stored."""
        if self.done:
            return self
        if self.stage is Stage.STORING and now < self.until_s:
            return replace(self, cancelling=True)
        return self._ended(now, Cancelled("It was cancelled.", reason="OPERATION_CANCELLED"))

    def delete(self, now: float) -> Operation:
        """Without its result, which is deleted after this.

        Raises:
            FailedPrecondition: FUSION_NOT_READY: it is not done.
        """
        if not self.done:
            raise FailedPrecondition("The fusion is not ready: cancel its operation.", reason="FUSION_NOT_READY")
        return self if self.deleted_s is not None else replace(self, deleted_s=now)

    def _ended(self, now: float, outcome: Fusion | FacetmeshError) -> Operation:
        ended = replace(self, stage=Stage.DONE, owner="", until_s=0.0, ended_s=now, checkpoint=None)
        if isinstance(outcome, Fusion):
            return replace(ended, result=outcome)
        return replace(ended, failure=Failure.of(outcome))

    def _check(self, attempt: Operation) -> None:
        if self.done or (self.owner, self.attempts) != (attempt.owner, attempt.attempts):
            raise Aborted("Somebody else has the job now, or it was cancelled.", reason="LEASE_LOST")
