"""Rollouts in Dapr state.

tenants/{tenant}/models/{model}/rollout                the last one
tenants/{tenant}/models/{model}/rollouts/{rollout}     those before it, which never change
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from facetmesh.detection.rollouts import Rollout
from facetmesh.kit.errors import Aborted
from facetmesh.kit.rollouts import Limits, Plan, Step

if TYPE_CHECKING:
    from facetmesh.kit.dapr import State


class DaprRolloutStore:
    """The store of rollouts.

    Args:
        state: Dapr state of the app detection.
    """

    def __init__(self, state: State) -> None:
        self._state = state

    async def current(self, tenant_id: str, model_id: str) -> Rollout | None:
        """The model's last rollout; None where it never had one."""
        return await self._read(f"tenants/{tenant_id}/models/{model_id}/rollout")

    async def put_current(self, rollout: Rollout) -> Rollout:
        """Stores a rollout over the one that has its etag, or a model's first one; Aborted where it cannot."""
        key = f"tenants/{rollout.tenant_id}/models/{rollout.model_id}/rollout"
        await self._state.put(key, _encoded(rollout), etag=rollout.etag or None, create=not rollout.etag)
        entry = await self._state.get(key)
        return replace(rollout, etag=entry.etag if entry else "")

    async def archive(self, rollout: Rollout) -> None:
        """Keeps a rollout that is over; once more changes nothing."""
        try:
            await self._state.put(rollout.name, _encoded(rollout), create=True)
        except Aborted:
            return

    async def archived(self, tenant_id: str, model_id: str, rollout_id: str) -> Rollout | None:
        """A rollout that was archived; None where there is none."""
        return await self._read(f"tenants/{tenant_id}/models/{model_id}/rollouts/{rollout_id}")

    async def _read(self, key: str) -> Rollout | None:
        entry = await self._state.get(key)
        if entry is None:
            return None
        fields = json.loads(entry.value)
        plan = fields["plan"]
        fields["plan"] = Plan(**{**plan, "steps": tuple(Step(**step) for step in plan["steps"])})
        return Rollout(**{**fields, "limits": Limits(**fields["limits"]), "etag": entry.etag})


def _encoded(rollout: Rollout) -> bytes:
    return json.dumps({**asdict(rollout), "etag": ""}).encode()
