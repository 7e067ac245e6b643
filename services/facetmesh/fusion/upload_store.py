"""Uploads in Dapr state.

    tenants/{tenant}/images/{sha256}    what is known of an upload
    tenants/{tenant}/images/index/…     hints for lists
    images/index/…                      hints for who deletes them when their time is over
"""  # noqa: D208 - a table

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from facetmesh.fusion.uploads import Upload
from facetmesh.kit.index import Index

if TYPE_CHECKING:
    from facetmesh.kit.dapr import State

_BUCKETS = 16


class DaprUploadStore:
    """The store of uploads.

    Args:
        state: Dapr state of the app fusion.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._all = Index(state, "images", buckets=_BUCKETS)

    async def get(self, tenant_id: str, sha256: str) -> Upload | None:
        """The upload; None when there is none."""
        if (entry := await self._state.get(_key(tenant_id, sha256))) is None:
            return None
        return Upload(tenant_id, sha256, **json.loads(entry.value), etag=entry.etag)

    async def put(self, upload: Upload) -> None:
        """Stores an upload over what has its etag, or a new one; raises Aborted where it cannot."""
        await self._all.add(f"{upload.tenant_id}/{upload.sha256}")
        await self._index(upload.tenant_id).add(upload.sha256)
        fields = {"created_s": upload.created_s, "version": upload.version, "size_bytes": upload.size_bytes}
        key = _key(upload.tenant_id, upload.sha256)
        await self._state.put(key, json.dumps(fields).encode(), etag=upload.etag or None, create=not upload.etag)

    async def delete(self, upload: Upload) -> None:
        """Deletes an upload that has its etag; raises Aborted where it has changed."""
        await self._state.delete(_key(upload.tenant_id, upload.sha256), upload.etag)
        await self._index(upload.tenant_id).remove(upload.sha256)
        await self._all.remove(f"{upload.tenant_id}/{upload.sha256}")

    async def ids(self, tenant_id: str) -> list[str]:
        """The SHA-256 of a tenant's uploads, sorted; some may have no record."""
        return await self._index(tenant_id).ids()

    async def everybodys(self) -> list[tuple[str, str]]:
        """All uploads, by tenant and SHA-256; some may have no record."""
        return [(tenant_id, sha256) for tenant_id, _, sha256 in (item.partition("/") for item in await self._all.ids())]

    async def delete_all(self, tenant_id: str) -> None:
        """Deletes a tenant's uploads, and their index last."""
        for sha256 in await self.ids(tenant_id):
            await self._state.delete(_key(tenant_id, sha256))
            await self._all.remove(f"{tenant_id}/{sha256}")
        await self._index(tenant_id).clear()

    def _index(self, tenant_id: str) -> Index:
        return Index(self._state, f"tenants/{tenant_id}/images", buckets=_BUCKETS)


def _key(tenant_id: str, sha256: str) -> str:
    return f"tenants/{tenant_id}/images/{sha256}"
