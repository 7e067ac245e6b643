"""Models' files on their way in: in parts, so that a transfer that was cut off goes on where it ended.

An upload is named after the SHA-256 of its file. What has come lies in blobs,
encrypted under the tenant's key; who never finishes loses it after a day.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from facetmesh.kit.errors import Aborted, FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable
    from pathlib import Path

PART_BYTES = 2 << 20
"""How much is kept at a time: so much is sent again after a break, at most."""
KEPT_S = 24 * 3600.0
"""How long a transfer may rest."""
MAX_UNFINISHED = 4
"""Transfers of a tenant that have not ended."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A file on its way."""

    tenant_id: str
    sha256: str
    """Of the whole file, in hex."""
    size_bytes: int
    """Of the whole file."""
    received_bytes: int = 0
    parts: int = 0
    """In how many blobs that lies."""
    changed_s: float = 0.0
    """When the last part came, in seconds since the epoch."""
    etag: str = ""

    @property
    def name(self) -> str:
        """The resource name."""
        return f"tenants/{self.tenant_id}/uploads/{self.sha256}"

    @property
    def expires_s(self) -> float:
        """When it is thrown away, in seconds since the epoch."""
        return self.changed_s + KEPT_S


class UploadStore(Protocol):
    """Where it is kept how far uploads got."""

    async def upload(self, tenant_id: str, sha256: str) -> Upload | None:
        """The upload."""

    async def put_upload(self, upload: Upload) -> Upload:
        """Stores an upload over what has its etag, or a new one; raises Aborted where it cannot."""
        ...

    async def delete_upload(self, upload: Upload) -> None:
        """Forgets an upload."""

    async def uploads(self, tenant_id: str) -> list[Upload]:
        """The tenant's uploads that have not ended."""
        ...

    async def everybodys_uploads(self) -> list[Upload]:
        """All tenants' uploads that have not ended."""
        ...


class BlobStore(Protocol):
    """Where the parts are kept."""

    async def put(self, tenant: str, key: str, data: bytes) -> None:
        """Stores data."""

    async def assemble(self, tenant: str, keys: Iterable[str], path: Path) -> str:
        """Writes the data under several keys into a file; returns its SHA-256 in hex."""
        ...

    async def delete(self, tenant: str, key: str) -> None:
        """Deletes data."""


class Uploads:
    """What can be done with uploads.

    Args:
        store: Where it is kept how far they got.
        blobs: Where the parts are kept.
        clock: Seconds since the epoch.
        max_bytes: The largest file.
        part_bytes: How much is kept at a time.
    """

    def __init__(
        self,
        store: UploadStore,
        blobs: BlobStore,
        clock: Callable[[], float],
        *,
        max_bytes: int,
        part_bytes: int = PART_BYTES,
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._clock = clock
        self._max_bytes = max_bytes
        self._part_bytes = part_bytes

    async def get(self, tenant_id: str, sha256: str) -> Upload:
        """How far an upload got.

        Raises:
            NotFound: UPLOAD_NOT_FOUND: it never began, has ended, or rested too long.
        """
        upload = await self._store.upload(tenant_id, sha256)
        if upload is None or upload.expires_s < self._clock():
            raise NotFound("There is no such upload.", reason="UPLOAD_NOT_FOUND")
        return upload

    async def begin(self, tenant_id: str, sha256: str, size_bytes: int, offset: int) -> Upload:
        """The upload to which more shall be added.

        Args:
            tenant_id: Whose.
            sha256: Of the whole file, in hex.
            size_bytes: Of the whole file.
            offset: Where what comes begins: 0 begins anew.

        Raises:
            InvalidArgument: MODEL_TOO_LARGE; OFFSET_MISMATCH, with `received_bytes` in its metadata.
            ResourceExhausted: TOO_MANY_UPLOADS: others must end first.
            Aborted: UPLOAD_CONFLICT: somebody else begins the same file at the same time.
        """
        if size_bytes > self._max_bytes:
            raise InvalidArgument(
                f"The file has {size_bytes} bytes; at most {self._max_bytes} are allowed.", reason="MODEL_TOO_LARGE"
            )
        await self._end_old(await self._store.uploads(tenant_id))
        known = await self._store.upload(tenant_id, sha256)
        if offset:
            received = known.received_bytes if known is not None and known.size_bytes == size_bytes else 0
            if known is None or received != offset:
                raise InvalidArgument(
                    f"{received} bytes of this file are here, not {offset}.", reason="OFFSET_MISMATCH",
                    metadata={"received_bytes": str(received)},
                )  # fmt: skip
            return known
        unfinished = [upload for upload in await self._store.uploads(tenant_id) if upload.sha256 != sha256]
        if len(unfinished) >= MAX_UNFINISHED:
            raise ResourceExhausted(
                f"{MAX_UNFINISHED} uploads have not ended; finish them first.", reason="TOO_MANY_UPLOADS"
            )
        if known is not None:  # it may lie in more parts than will come now
            await self.discard(known)
        return await self._note(Upload(tenant_id, sha256, size_bytes, changed_s=self._clock()))

    async def receive(self, upload: Upload, chunks: AsyncIterator[bytes]) -> Upload:
        """Keeps what comes, part by part, until the file is whole.

        Raises:
            InvalidArgument: UPLOAD_TOO_LONG: more comes than was said; UPLOAD_INCOMPLETE: less.
            Aborted: UPLOAD_CONFLICT: somebody else sends the same file at the same time.
        """
        buffer = bytearray()
        async for chunk in chunks:
            buffer += chunk
            if upload.received_bytes + len(buffer) > upload.size_bytes:
                raise InvalidArgument("More came than the upload's size_bytes.", reason="UPLOAD_TOO_LONG")
            while len(buffer) >= self._part_bytes:
                upload = await self._keep(upload, bytes(buffer[: self._part_bytes]))
                del buffer[: self._part_bytes]
        if buffer:
            upload = await self._keep(upload, bytes(buffer))
        if upload.received_bytes < upload.size_bytes:
            raise InvalidArgument(
                f"Only {upload.received_bytes} of {upload.size_bytes} bytes came: go on from there.",
                reason="UPLOAD_INCOMPLETE", metadata={"received_bytes": str(upload.received_bytes)},
            )  # fmt: skip
        return upload

    async def assemble(self, upload: Upload, path: Path) -> None:
        """Writes the whole file.

        Raises:
            FailedPrecondition: UPLOAD_CORRUPT: its SHA-256 is another; what came was thrown away.
            ResourceExhausted: MODEL_CACHE_FULL: there is no room for it; what came is kept.
            Aborted: UPLOAD_CONFLICT: somebody else has begun it anew.
        """
        keys = (_key(upload, part) for part in range(upload.parts))
        try:
            sha256 = await self._blobs.assemble(upload.tenant_id, keys, path)
        except NotFound:
            raise _conflict() from None
        except OSError as error:
            raise ResourceExhausted(
                "There is no room to look at the file: go on later.", reason="MODEL_CACHE_FULL", retry_after_s=60
            ) from error
        if sha256 != upload.sha256:
            await self.discard(upload)
            raise FailedPrecondition(
                "What came has another SHA-256 than was said: send it again.", reason="UPLOAD_CORRUPT"
            )

    async def discard(self, upload: Upload) -> None:
        """Throws away what came; nothing where somebody else has added to it since, or begun it anew."""
        current = await self._store.upload(upload.tenant_id, upload.sha256)
        if current is None or current.etag != upload.etag:
            return
        for part in range(upload.parts + 1):  # a crash leaves one that is not counted
            await self._blobs.delete(upload.tenant_id, _key(upload, part))
        await self._store.delete_upload(upload)

    async def sweep(self) -> int:
        """Throws away what rested too long, of tenants too who never come back; returns how many transfers.

        Raises:
            Unavailable: Something may be left.
        """
        return await self._end_old(await self._store.everybodys_uploads())

    async def _keep(self, upload: Upload, data: bytes) -> Upload:
        await self._blobs.put(upload.tenant_id, _key(upload, upload.parts), data)
        return await self._note(
            replace(
                upload, received_bytes=upload.received_bytes + len(data), parts=upload.parts + 1,
                changed_s=self._clock(),
            )
        )  # fmt: skip

    async def _note(self, upload: Upload) -> Upload:
        try:
            return await self._store.put_upload(upload)
        except Aborted:
            raise _conflict() from None

    async def _end_old(self, uploads: Iterable[Upload]) -> int:
        old = [upload for upload in uploads if upload.expires_s < self._clock()]
        for upload in old:
            await self.discard(upload)
        return len(old)


def _conflict() -> Aborted:
    return Aborted("Somebody else sends the same file.", reason="UPLOAD_CONFLICT", retry_after_s=1)


def _key(upload: Upload, part: int) -> str:
    return f"uploads/{upload.sha256}/{part:05}"
