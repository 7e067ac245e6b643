"""Images that tenants send once and name in fusions: kept for a day, under their SHA-256."""

from __future__ import annotations

import hashlib
import logging
import secrets
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from facetmesh.kit.errors import Aborted, InvalidArgument, NotFound, ResourceExhausted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from facetmesh.fusion.images import Images

KEPT_S = 24 * 3600.0
"""How long an image is kept after it was uploaded last."""
MAX_BYTES = 20_000_000
"""The largest image, as fusions take them."""
MOST = 100
"""So many images of a tenant at a time."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Upload:
    """An image that was uploaded, or is being."""

    tenant_id: str
    sha256: str
    """Of the file, in hex."""
    created_s: float
    """When it was uploaded last, in seconds since the epoch."""
    version: str
    """Of the file's blob: who deletes an old one does not delete one that was uploaded meanwhile."""
    size_bytes: int = 0
    """Of the file; 0 until all of it is here, and while it is being deleted."""
    etag: str = ""

    @property
    def name(self) -> str:
        """The resource name."""
        return f"tenants/{self.tenant_id}/images/{self.sha256}"

    @property
    def expires_s(self) -> float:
        """When it is deleted, in seconds since the epoch."""
        return self.created_s + KEPT_S


class UploadStore(Protocol):
    """Where it is kept what was uploaded."""

    async def get(self, tenant_id: str, sha256: str) -> Upload | None:
        """The upload; None when there is none."""
        ...

    async def put(self, upload: Upload) -> None:
        """Stores an upload over what has its etag, or a new one; raises Aborted where it cannot."""
        ...

    async def delete(self, upload: Upload) -> None:
        """Deletes an upload that has its etag; raises Aborted where it has changed."""
        ...

    async def ids(self, tenant_id: str) -> list[str]:
        """The SHA-256 of a tenant's uploads, sorted; some may have no record."""
        ...

    async def everybodys(self) -> list[tuple[str, str]]:
        """All uploads, by tenant and SHA-256; some may have no record."""
        ...


class Uploads:
    """The uploads of all tenants.

    Args:
        store: Where it is kept what was uploaded.
        images: Where the files are.
        clock: Seconds since the epoch.
    """

    def __init__(self, store: UploadStore, images: Images, clock: Callable[[], float]) -> None:
        self._store = store
        self._images = images
        self._clock = clock

    async def receive(self, tenant_id: str, sha256: str, chunks: AsyncIterator[bytes]) -> Upload:
        """Keeps an image; what is here already stays, from now on for as long again, and no chunk is asked for.

        Raises:
            InvalidArgument: IMAGE_TOO_LARGE; IMAGE_CORRUPT: its SHA-256 is another, or it is empty.
            ResourceExhausted: TOO_MANY_IMAGES: others must be deleted first.
            Aborted: Somebody else sends it at the same time.
        """
        known = await self._store.get(tenant_id, sha256)
        if known is not None and self._whole(known):
            return await self._put(replace(known, created_s=self._clock()))
        if known is None and len(await self._store.ids(tenant_id)) >= MOST:
            raise ResourceExhausted(f"There are {MOST} images: delete some.", reason="TOO_MANY_IMAGES")
        file = await _read(chunks)
        if not file:
            raise InvalidArgument("The file is empty.", reason="IMAGE_CORRUPT")
        if hashlib.sha256(file).hexdigest() != sha256:
            raise InvalidArgument("What came has another SHA-256 than was said.", reason="IMAGE_CORRUPT")
        # Noted first: what a crash leaves behind is found and deleted.
        etag = known.etag if known is not None else ""
        upload = await self._put(Upload(tenant_id, sha256, self._clock(), secrets.token_hex(8), etag=etag))
        await self._images.put_upload(upload, file)
        if known is not None:
            await self._images.delete_upload(known)
        return await self._put(replace(upload, size_bytes=len(file)))

    async def get(self, tenant_id: str, sha256: str) -> Upload:
        """What is known of an image.

        Raises:
            NotFound: IMAGE_NOT_FOUND: there is none, or its day is over.
        """
        upload = await self._store.get(tenant_id, sha256)
        if upload is None or not self._whole(upload):
            raise NotFound("There is no such image, or its day is over: upload it.", reason="IMAGE_NOT_FOUND")
        return upload

    async def ids(self, tenant_id: str) -> list[str]:
        """The SHA-256 of a tenant's images, sorted; some may be there no more."""
        return await self._store.ids(tenant_id)

    async def read(self, tenant_id: str, sha256: str) -> bytes:
        """An image's file; raises as `get` does."""
        return await self._images.upload(await self.get(tenant_id, sha256))

    async def delete(self, tenant_id: str, sha256: str) -> None:
        """Deletes an image; raises as `get` does."""
        await self._delete(await self.get(tenant_id, sha256))

    async def sweep(self) -> int:
        """Deletes the images whose day is over; returns how many. Repeating it does no harm.

        Raises:
            Unavailable: Something may be left.
        """
        count = 0
        for tenant_id, sha256 in await self._store.everybodys():
            upload = await self._store.get(tenant_id, sha256)
            if upload is None or upload.expires_s > self._clock():
                continue
            try:
                await self._delete(upload)
            except Aborted:
                continue  # it was uploaded again meanwhile
            count += 1
        if count:
            _log.info("uploaded images have expired", extra={"count": count})
        return count

    def _whole(self, upload: Upload) -> bool:
        return bool(upload.size_bytes) and upload.expires_s > self._clock()

    async def _put(self, upload: Upload) -> Upload:
        conflict = Aborted("Somebody else sends the same image.", reason="UPLOAD_CONFLICT", retry_after_s=1)
        try:
            await self._store.put(upload)
        except Aborted:
            raise conflict from None
        stored = await self._store.get(upload.tenant_id, upload.sha256)
        if stored is None or stored != replace(upload, etag=stored.etag):
            raise conflict
        return stored

    async def _delete(self, upload: Upload) -> None:
        upload = await self._put(replace(upload, size_bytes=0))
        await self._images.delete_upload(upload)
        await self._store.delete(upload)


async def _read(chunks: AsyncIterator[bytes]) -> bytes:
    file = bytearray()
    async for chunk in chunks:
        file += chunk
        if len(file) > MAX_BYTES:
            raise InvalidArgument(f"At most {MAX_BYTES} bytes are allowed.", reason="IMAGE_TOO_LARGE")
    return bytes(file)
