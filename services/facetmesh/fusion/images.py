"""The images of fusions, where each is kept, and how they go."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING, Protocol

from facetmesh.kit.errors import Aborted

if TYPE_CHECKING:
    from facetmesh.fusion.operations import Checkpoint, Operation, Ref
    from facetmesh.fusion.uploads import Upload


class Blobs(Protocol):
    """Encrypted blobs by tenant: `kit.blobs.Blobs`."""

    async def put(self, tenant: str, key: str, data: bytes) -> None:
        """Stores data."""
        ...

    async def get(self, tenant: str, key: str) -> bytes:
        """The data; raises NotFound when there is none."""
        ...

    async def delete(self, tenant: str, key: str) -> None:
        """Deletes data, if there is any."""
        ...


class Images:
    """The images of all tenants' fusions.

    Args:
        blobs: Where they are.
    """

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    async def put_inputs(self, ref: Ref, source: bytes, target: bytes, reference: bytes = b"") -> None:
        """Keeps what a job is to work on; the reference, if there is any."""
        keys = {_source(ref): source, _target(ref): target} | ({_reference(ref): reference} if reference else {})
        await asyncio.gather(*(self._blobs.put(ref.tenant_id, key, data) for key, data in keys.items()))

    async def inputs(self, operation: Operation) -> tuple[bytes, bytes]:
        """A job's source and target.

        Raises:
            NotFound: They are gone.
            Aborted: REQUEST_ID_REUSED: they are those of another request.
        """
        ref, job = operation.ref, operation.job
        source, target = await asyncio.gather(
            self._input(ref, _source(ref), job.source_sha256), self._input(ref, _target(ref), job.target_sha256)
        )
        return source, target

    async def reference(self, operation: Operation) -> bytes:
        """What shows whom to look for in a job's target; raises as `inputs` does."""
        return await self._input(operation.ref, _reference(operation.ref), operation.job.reference_sha256)

    async def put_upload(self, upload: Upload, image: bytes) -> None:
        """Keeps what was uploaded."""
        await self._blobs.put(upload.tenant_id, _upload(upload), image)

    async def upload(self, upload: Upload) -> bytes:
        """What was uploaded; raises NotFound when it is gone."""
        return await self._blobs.get(upload.tenant_id, _upload(upload))

    async def delete_upload(self, upload: Upload) -> None:
        """Deletes what was uploaded, if anything."""
        await self._blobs.delete(upload.tenant_id, _upload(upload))

    async def put_result(self, attempt: Operation, image: bytes) -> None:
        """Keeps what an attempt made: one that lost its lease does not write over another's."""
        await self._blobs.put(attempt.tenant_id, _result(attempt.ref, attempt.attempts), image)

    async def result(self, operation: Operation) -> bytes:
        """What an operation made; raises NotFound when it is gone."""
        return await self._blobs.get(operation.tenant_id, _result(operation.ref, operation.attempts))

    async def delete_result(self, attempt: Operation) -> None:
        """Deletes what an attempt made, if anything."""
        await self._blobs.delete(attempt.tenant_id, _result(attempt.ref, attempt.attempts))

    async def delete_results(self, operation: Operation, *, but_last: bool = False) -> None:
        """Deletes what all attempts made, or all but the last."""
        for attempt in range(1, operation.attempts + (0 if but_last else 1)):
            await self._blobs.delete(operation.tenant_id, _result(operation.ref, attempt))

    async def put_progress(self, ref: Ref, checkpoint: Checkpoint, data: bytes) -> None:
        """Keeps what came of a stage."""
        await self._blobs.put(ref.tenant_id, _progress(ref, checkpoint), data)

    async def progress(self, ref: Ref, checkpoint: Checkpoint) -> bytes:
        """What came of a stage; raises NotFound when it is gone."""
        return await self._blobs.get(ref.tenant_id, _progress(ref, checkpoint))

    async def delete_progress(self, ref: Ref, checkpoint: Checkpoint) -> None:
        """Deletes what came of a stage, if anything."""
        await self._blobs.delete(ref.tenant_id, _progress(ref, checkpoint))

    async def delete_inputs(self, ref: Ref) -> None:
        """Deletes what a job was to work on."""
        for key in (_source(ref), _target(ref), _reference(ref)):
            await self._blobs.delete(ref.tenant_id, key)

    async def _input(self, ref: Ref, key: str, sha256: str) -> bytes:
        data = await self._blobs.get(ref.tenant_id, key)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise Aborted("The request_id was used for two requests at once.", reason="REQUEST_ID_REUSED")
        return data


def _upload(upload: Upload) -> str:
    return f"images/{upload.sha256}/{upload.version}"


def _source(ref: Ref) -> str:
    return f"inputs/{ref.id}/source"


def _target(ref: Ref) -> str:
    return f"inputs/{ref.id}/target"


def _reference(ref: Ref) -> str:
    return f"inputs/{ref.id}/reference"


def _progress(ref: Ref, checkpoint: Checkpoint) -> str:
    return f"progress/{ref.id}/{checkpoint.attempt}/{checkpoint.stage}"


def _result(ref: Ref, attempt: int) -> str:
    return f"fusions/{ref.id}/{attempt}"
