"""What callers do with fusions: ask for one, watch it, stop it, fetch it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from facetmesh.fusion.consents import SourceFace
from facetmesh.fusion.line import Priority
from facetmesh.fusion.operations import Caller, Job, Operation, Ref
from facetmesh.fusion.options import PLAIN, Options
from facetmesh.kit.errors import AlreadyExists, FailedPrecondition, NotFound

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from facetmesh.fusion.backends import Backends
    from facetmesh.fusion.consents import Consents
    from facetmesh.fusion.images import Images
    from facetmesh.fusion.line import Ticket
    from facetmesh.fusion.registry import Registry


_NOBODY = Caller()


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be done with two images."""

    face_model: str
    """The model that finds the faces."""
    source_face_index: int = 0
    """Which face is taken; 0 is the largest."""
    target_face_index: int = 0
    """Which face is replaced; 0 is the largest."""
    consent: str = ""
    """The resource name of the consent of whose face is taken."""
    priority: Priority = Priority.STANDARD
    """How urgent it is among the tenant's own."""
    options: Options = PLAIN
    """What else was chosen."""
    reference: bytes = b""
    """The file that shows whose face is replaced, for the pick REFERENCE."""


class Fusions:
    """The fusions of all tenants.

    Args:
        registry: Their operations.
        images: What goes in and what comes out.
        consents: Who agreed to what.
        backends: What fuses, and for whom.
        wake: Makes workers look at an operation.
    """

    def __init__(
        self,
        registry: Registry,
        images: Images,
        consents: Consents,
        backends: Backends,
        wake: Callable[[Ticket], Awaitable[None]],
    ) -> None:
        self._registry = registry
        self._images = images
        self._consents = consents
        self._backends = backends
        self._wake = wake

    async def create(
        self,
        tenant_id: str,
        source: bytes,
        target: bytes,
        wish: Wish,
        *,
        caller: Caller = _NOBODY,
        request_id: str = "",
    ) -> Operation:
        """Starts a fusion. Once this returns, it survives any crash.

        Args:
            tenant_id: Whose it is.
            source: The file that gives the face.
            target: The file that receives it.
            wish: What is to be done with them.
            caller: Who asks.
            request_id: A repeated one returns the first call's operation.

        Raises:
            AlreadyExists: REQUEST_ID_REUSED: the request_id came with something else before.
            FailedPrecondition: The consent does not allow it (`Consent.check`), or there is none: CONSENT_MISSING;
                BACKEND_MISSING.
            PermissionDenied: LICENCE_NOT_ALLOWED: of a model of the backend.
        """
        await self._backends.check(tenant_id, wish.options)
        agreed = await self._consents.named(tenant_id, wish.consent)
        job = Job(
            hashlib.sha256(source).hexdigest(), hashlib.sha256(target).hexdigest(),
            wish.face_model, wish.source_face_index, wish.target_face_index,
            wish.consent, agreed.sha256 if agreed else "", wish.priority, wish.options,
            hashlib.sha256(wish.reference).hexdigest() if wish.reference else "",
        )
        store, now = self._registry.store, self._registry.clock()
        operation_id = Ref.new(tenant_id, now).id
        if request_id:
            operation_id = await store.reserve(tenant_id, request_id, operation_id)
        operation = Operation(tenant_id, operation_id, job, now, caller)
        if (existing := await store.get(operation.ref)) is None:
            if agreed is not None:
                agreed.check(SourceFace(job.source_sha256, job.source_face_index), now)
            # Announced first: whatever a crash leaves behind is found and cleared away.
            await store.announce(operation.ticket)
            await self._images.put_inputs(operation.ref, source, target, wish.reference)
            if not await store.create(operation):
                existing = await store.get(operation.ref)
        if existing is not None:
            return _same(existing, job)
        await self._wake(operation.ticket)
        return operation

    async def get(self, ref: Ref) -> Operation:
        """The operation; raises NotFound when there is none."""
        return await self._registry.get(ref)

    async def ids(self, tenant_id: str) -> list[str]:
        """The ids of a tenant's operations, the newest first; some may have no record."""
        return (await self._registry.store.ids(tenant_id))[::-1]

    async def wait(self, ref: Ref, timeout_s: float) -> Operation:
        """The operation, once it is done or the timeout has passed."""
        return await self._registry.wait(ref, timeout_s)

    def follow(self, ref: Ref) -> AsyncIterator[Operation]:
        """The operation now, and again whenever it may have changed, until it is done."""
        return self._registry.follow(ref)

    async def cancel(self, ref: Ref) -> Operation:
        """Stops an operation, unless it is done. Who works on it finds out at its next step."""
        operation = await self._registry.change(ref, lambda found: found.cancel(self._registry.clock()))
        await self._wake(operation.ticket)
        return operation

    async def made(self, ref: Ref) -> Operation:
        """The operation whose fused image is kept.

        Raises:
            NotFound: There is no such fusion.
            FailedPrecondition: FUSION_NOT_READY: its operation is not done.
        """
        operation = await self._registry.store.get(ref)
        if operation is None or operation.failure is not None or operation.deleted_s is not None:
            raise NotFound("There is no such fusion.")
        if operation.result is None:
            raise FailedPrecondition("The fusion is not ready: wait for its operation.", reason="FUSION_NOT_READY")
        return operation

    async def download(self, ref: Ref) -> tuple[str, bytes]:
        """The fused image's media type and file; raises as `made` does."""
        operation = await self.made(ref)
        assert operation.result is not None  # noqa: S101 - it was made
        return operation.result.media_type, await self._images.result(operation)

    async def delete(self, ref: Ref) -> None:
        """Deletes the fused image for good. Repeating it does no harm.

        Raises:
            NotFound: There is no such fusion.
            FailedPrecondition: FUSION_NOT_READY: its operation is not done.
        """
        operation = await self._registry.change(ref, lambda found: found.delete(self._registry.clock()))
        if operation.result is None:
            raise NotFound("There is no such fusion.")
        await self._images.delete_results(operation)


def _same(existing: Operation, job: Job) -> Operation:
    if existing.job != job:
        raise AlreadyExists("This request_id came with another request before.", reason="REQUEST_ID_REUSED")
    return existing
