"""The end of a tenant in detection: its models, rollouts, uploads and policy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from facetmesh.detection.rollout.store import DaprRolloutStore
    from facetmesh.detection.shelf import Shelf
    from facetmesh.detection.store import DaprStore


class PurgeBlobs(Protocol):
    """Where files are kept."""

    async def delete_all(self, tenant: str) -> None:
        """Deletes all of a tenant's data."""
        ...


async def purge(
    store: DaprStore, rollouts: DaprRolloutStore, blobs: PurgeBlobs, shelf: Shelf, tenant_id: str
) -> None:
    """Deletes all that is kept of a tenant. Repeating it does no harm.

    Raises:
        Unavailable: Something may be left.
    """
    shelf.clear(tenant_id)
    await blobs.delete_all(tenant_id)
    for model_id in await store.model_ids(tenant_id):
        await rollouts.delete_all(f"tenants/{tenant_id}/models/{model_id}")
    await store.delete_all(tenant_id)
