"""The end of a tenant in fusion: its operations, its images, its consents and its uploads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from facetmesh.fusion.operations import Ref


class PurgeStore(Protocol):
    """Where operations are kept."""

    async def refs(self, tenant_id: str) -> list[Ref]:
        """A tenant's operations; some may have no record."""
        ...

    async def forget(self, ref: Ref) -> None:
        """Notes that an operation needs no more work."""
        ...

    async def delete_all(self, tenant_id: str) -> None:
        """Deletes a tenant's operations, and their index last."""
        ...


class PurgeBlobs(Protocol):
    """Where images are kept."""

    async def delete_all(self, tenant: str) -> None:
        """Deletes all of a tenant's data."""
        ...


class PurgeRecords(Protocol):
    """Where other records are kept, such as consents."""

    async def delete_all(self, tenant_id: str) -> None:
        """Deletes a tenant's records, and their index last."""
        ...


async def purge(store: PurgeStore, blobs: PurgeBlobs, records: Sequence[PurgeRecords], tenant_id: str) -> None:
    """Deletes all that is kept of a tenant. Repeating it does no harm.

    Raises:
        Unavailable: Something may be left.
    """
    for ref in await store.refs(tenant_id):
        await store.forget(ref)
    await blobs.delete_all(tenant_id)
    for kind in records:
        await kind.delete_all(tenant_id)
    await store.delete_all(tenant_id)
