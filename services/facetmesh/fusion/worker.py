"""Workers: take jobs, do them, and account for them."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from facetmesh.fusion.consents import SourceFace
from facetmesh.fusion.faces import choose
from facetmesh.fusion.fuser import MEDIA_TYPE
from facetmesh.fusion.fusions import result_key, source_key, target_key
from facetmesh.fusion.lookups import Imprint
from facetmesh.fusion.marker import Facts
from facetmesh.fusion.operations import LEASE_S, MAX_ATTEMPTS, Fusion, Operation, Stage
from facetmesh.fusion.retention import day_of
from facetmesh.kit.errors import (
    Aborted,
    Cancelled,
    DeadlineExceeded,
    FacetmeshError,
    Internal,
    ResourceExhausted,
    Unavailable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractAsyncContextManager, AbstractContextManager

    from facetmesh.fusion.consents import Consents
    from facetmesh.fusion.faces import Face, FaceFinder, Found
    from facetmesh.fusion.fusions import Blobs
    from facetmesh.fusion.lookups import Looks
    from facetmesh.fusion.operations import Ref
    from facetmesh.fusion.registry import Registry

METHOD = "facetmesh.fusion/fuse"
"""What the audit log calls the work."""
HEARTBEAT_S = LEASE_S / 4
"""How often a worker shows that it lives."""
_MAY_PASS = (Unavailable, DeadlineExceeded, ResourceExhausted, Aborted, Cancelled, Internal)
_MEMORY_TRIES = 3
"""What ran out of memory is tried less often: each try may cost the tenant's runner."""
_log = logging.getLogger(__name__)


class Record(Protocol):
    """The audit record of a piece of work: `kit.audit.Record`."""

    @property
    def receipt(self) -> str:
        """The receipt's resource name."""
        ...

    def describe(
        self, *, resource: str, model_version: str = "", inputs: Sequence[bytes] = (), output: bytes = b""
    ) -> None:
        """Adds what is known."""
        ...


class Recorder(Protocol):
    """Accounts for work: `kit.audit.Recorder`."""

    def record(
        self, *, method: str, tenant: str, subject: str, event_id: str | None = None
    ) -> AbstractAsyncContextManager[Record]:
        """Records what is done within; on leaving, the event has been accepted."""
        ...


class FaceFuser(Protocol):
    """Fuses faces: `fuser.Fuser`."""

    async def fuse(
        self, tenant_id: str, subject: str, source: bytes, source_face: Face, target: bytes, target_face: Face
    ) -> bytes:
        """The file of the target with the source's face."""
        ...


class ResultMarker(Protocol):
    """Marks results: `marker.Marker`."""

    async def mark(self, tenant_id: str, subject: str, image: bytes, facts: Facts) -> bytes:
        """The file with its manifest."""
        ...


@dataclass(frozen=True, slots=True)
class Stages:
    """What a job's images go through, in this order."""

    finder: FaceFinder
    """Finds faces."""
    fuser: FaceFuser
    """Fuses them."""
    fingerprints: Looks
    """Say how what was made looks."""
    marker: ResultMarker | None
    """Marks what was made; None where results are not marked."""


class Worker:
    """Does one job at a time, as often as it is called.

    Args:
        owner: Its name in leases, unlike any other's.
        registry: The operations.
        blobs: Where images are kept.
        consents: Who agreed to what.
        stages: What a job's images go through.
        recorder: Accounts for each job that ends.
        trace: A span of that name, in those traces.
    """

    def __init__(
        self,
        owner: str,
        *,
        registry: Registry,
        blobs: Blobs,
        consents: Consents,
        stages: Stages,
        recorder: Recorder,
        trace: Callable[[str, Sequence[str]], AbstractContextManager[None]],
    ) -> None:
        self._owner = owner
        self._registry = registry
        self._clock = registry.clock
        self._blobs = blobs
        self._consents = consents
        self._stages = stages
        self._recorder = recorder
        self._trace = trace

    async def work(self, operation: Operation) -> Operation:
        """Takes a job and works on it until it is done, or back in the queue.

        Returns:
            The operation as it is then.

        Raises:
            Aborted: Somebody else has it, or took it away.
            Unavailable: The store does not answer; the job is taken up again when the lease has ended.
        """
        attempt = await self._registry.change(operation.ref, lambda found: found.claim(self._owner, self._clock()))
        with self._trace(METHOD, [attempt.caller.traceparent]):
            job = asyncio.create_task(self._perform(attempt))
            lease = asyncio.create_task(self._keep(attempt))
            try:
                await asyncio.wait([job, lease], return_when=asyncio.FIRST_COMPLETED)
                if not job.done():
                    job.cancel()
                    await asyncio.wait([job])
                    await lease  # raises why it was lost
                return await job
            except Aborted:
                await self._blobs.delete(attempt.tenant_id, result_key(attempt.ref, attempt.attempts))
                raise
            finally:
                for task in (job, lease):
                    task.cancel()

    async def clear(self, operation: Operation) -> None:
        """Removes what a finished job leaves: its inputs, and what attempts that died had stored."""
        ref = operation.ref
        kept = operation.attempts if operation.result else 0
        for attempt in range(1, operation.attempts + 1):
            if attempt != kept:
                await self._blobs.delete(ref.tenant_id, result_key(ref, attempt))
        await self.abandon(ref)

    async def abandon(self, ref: Ref) -> None:
        """Removes what was stored for a job."""
        for key in (source_key(ref), target_key(ref)):
            await self._blobs.delete(ref.tenant_id, key)
        await self._registry.store.forget(ref)

    async def _perform(self, attempt: Operation) -> Operation:
        outcome: Fusion | FacetmeshError
        try:
            outcome = await self._make(attempt)
        except FacetmeshError as error:
            if error.reason == "LEASE_LOST":
                raise
            outcome = error
        except Exception:  # noqa: BLE001 - a job must end, whatever it raises
            _log.exception("a job failed through our fault", extra={"operation": attempt.name})
            outcome = Internal("An internal error. It has been logged.")
        if isinstance(outcome, FacetmeshError):
            _log.info(
                "attempt failed",
                extra={"operation": attempt.name, "attempt": attempt.attempts, "reason": outcome.reason},
            )
            if isinstance(outcome, _MAY_PASS) and attempt.attempts < _tries(outcome) and not attempt.cancelling:
                return await self._registry.change(attempt.ref, lambda found: found.release(attempt, self._clock()))
            await self._account(attempt, outcome)
        return await self._registry.change(attempt.ref, lambda found: found.finish(attempt, self._clock(), outcome))

    async def _make(self, attempt: Operation) -> Fusion:
        if attempt.cancelling:
            raise Cancelled("It was cancelled.", reason="OPERATION_CANCELLED")
        if attempt.attempts > MAX_ATTEMPTS:
            raise Unavailable("The work was begun too often without an end.", reason="ATTEMPTS_EXHAUSTED")
        tenant_id, job = attempt.tenant_id, attempt.job
        await self._check_consent(attempt)
        source, target = await asyncio.gather(
            self._input(attempt, source_key(attempt.ref), job.source_sha256),
            self._input(attempt, target_key(attempt.ref), job.target_sha256),
        )
        in_source, in_target = await asyncio.gather(
            self._find(attempt, source, "source"), self._find(attempt, target, "target")
        )
        source_face = choose(in_source.faces, job.source_face_index, "source")
        target_face = choose(in_target.faces, job.target_face_index, "target")
        await self._advance(attempt, Stage.FUSING)
        subject, event_id = f"operations/{attempt.id}", secrets.token_hex(16)
        image = await self._stages.fuser.fuse(tenant_id, subject, source, source_face, target, target_face)
        if (marker := self._stages.marker) is not None:
            facts = Facts(f"tenants/{tenant_id}/receipts/{event_id}", job.source_sha256, job.target_sha256)
            image = await marker.mark(tenant_id, subject, image, facts)
        # From here on it cannot be cancelled: what the log says was made is what there is.
        await self._advance(attempt, Stage.STORING)
        await self._check_consent(attempt)  # it may have been revoked meanwhile
        await self._registry.store.note_result(attempt.ref, day_of(self._clock()))
        await self._blobs.put(tenant_id, result_key(attempt.ref, attempt.attempts), image)
        digest = hashlib.sha256(image)
        fingerprint = await self._stages.fingerprints.of(tenant_id, subject, image)
        await self._registry.store.imprint(tenant_id, Imprint(attempt.id, digest.hexdigest(), fingerprint))
        receipt = await self._account(attempt, None, in_target.model_version, digest.digest(), event_id)
        return Fusion(source_face.box, target_face.box, MEDIA_TYPE, len(image), digest.hexdigest(), receipt)

    async def _check_consent(self, attempt: Operation) -> None:
        job = attempt.job
        await self._consents.check(
            attempt.tenant_id, job.consent, SourceFace(job.source_sha256, job.source_face_index)
        )

    async def _input(self, attempt: Operation, key: str, sha256: str) -> bytes:
        data = await self._blobs.get(attempt.tenant_id, key)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise Aborted("The request_id was used for two requests at once.", reason="REQUEST_ID_REUSED")
        return data

    async def _find(self, attempt: Operation, image: bytes, which: str) -> Found:
        try:
            return await self._stages.finder.find(attempt.tenant_id, attempt.job.face_model, image)
        except FacetmeshError as error:
            raise type(error)(
                f"Finding faces in the {which} image: {error.message}",
                reason=error.reason, metadata={**error.metadata, "image": which}, retry_after_s=error.retry_after_s,
            ) from error

    async def _account(
        self,
        attempt: Operation,
        error: FacetmeshError | None,
        model_version: str = "",
        output: bytes = b"",
        event_id: str | None = None,
    ) -> str:
        """Gets the end of a job recorded; returns the receipt's name."""
        tenant, job = f"tenants/{attempt.tenant_id}", attempt.job
        try:
            async with self._recorder.record(
                method=METHOD, tenant=tenant, subject=attempt.caller.subject, event_id=event_id
            ) as record:
                record.describe(
                    resource=attempt.fusion_name,
                    model_version=model_version,
                    inputs=job.inputs,
                    output=output,
                )
                if error is not None:
                    raise error
        except FacetmeshError as raised:
            if raised is not error:
                raise
        return record.receipt

    async def _advance(self, attempt: Operation, stage: Stage) -> None:
        await self._registry.change(attempt.ref, lambda found: found.advance(attempt, self._clock(), stage))

    async def _keep(self, attempt: Operation) -> None:
        """Renews the lease until it is lost: then raises Aborted."""
        while True:
            # News of the operation may be that it was cancelled here.
            await self._registry.news(attempt.ref, HEARTBEAT_S)
            try:
                await self._registry.change(attempt.ref, lambda found: found.advance(attempt, self._clock()))
            except Unavailable:
                await asyncio.sleep(HEARTBEAT_S / 4)


def _tries(error: FacetmeshError) -> int:
    """How often the work is begun that ends with this error."""
    return _MEMORY_TRIES if error.reason == "RUNNER_MEMORY" else MAX_ATTEMPTS
