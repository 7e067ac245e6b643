"""Models in Dapr state.

tenants/{tenant}/models/{model}      a model
tenants/{tenant}/models/index/…      a hint for lists
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from facetmesh.detection.models import Model
from facetmesh.kit.errors import Aborted
from facetmesh.kit.index import Index

if TYPE_CHECKING:
    from facetmesh.kit.dapr import State


class DaprStore:
    """The store of detection.

    Args:
        state: Dapr state of the app detection.
    """

    def __init__(self, state: State) -> None:
        self._state = state

    async def model(self, tenant_id: str, model_id: str) -> Model | None:
        """The model; None when there is none."""
        entry = await self._state.get(_key(tenant_id, model_id))
        if entry is None:
            return None
        fields = json.loads(entry.value)
        return Model(**{**fields, "labels": tuple(fields["labels"]), "etag": entry.etag})

    async def create_model(self, model: Model) -> bool:
        """Stores a new model; False when there is one with its id."""
        await self._index(model.tenant_id).add(model.id)
        fields = {name: value for name, value in asdict(model).items() if name != "etag"}
        try:
            await self._state.put(_key(model.tenant_id, model.id), json.dumps(fields).encode(), create=True)
        except Aborted:
            return False
        return True

    async def model_ids(self, tenant_id: str) -> list[str]:
        """The tenant's model ids, sorted."""
        return await self._index(tenant_id).ids()

    def _index(self, tenant_id: str) -> Index:
        return Index(self._state, f"tenants/{tenant_id}/models")


def _key(tenant_id: str, model_id: str) -> str:
    return f"tenants/{tenant_id}/models/{model_id}"
