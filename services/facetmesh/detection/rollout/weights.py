"""The local executor: detection's own weights split the calls, no gateway and no cluster."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from facetmesh.detection.models import STABLE
from facetmesh.detection.rollout.plan import WHOLE
from facetmesh.detection.splits import Traffic
from facetmesh.kit.errors import NotFound

if TYPE_CHECKING:
    from facetmesh.detection.models import Models
    from facetmesh.detection.rollout.record import Rollout


class Weights:
    """Splits calls by a model's traffic. Each call is on its own: a gate counts calls, not callers.

    Args:
        models: The models.
    """

    def __init__(self, models: Models) -> None:
        self._models = models

    async def apply(self, rollout: Rollout) -> None:
        """Has the calls split as the rollout's current step says."""
        step = rollout.current
        parts = ((rollout.stable, WHOLE - step.percent), (rollout.candidate, step.percent))
        traffic = Traffic(
            tuple((str(version), percent) for version, percent in parts if percent),
            "none",
            str(rollout.candidate) if step.shadow_percent else "",
            step.shadow_percent,
        )
        await self._change(rollout, traffic, {})

    async def promote(self, rollout: Rollout) -> None:
        """Makes the candidate the stable version, and ends the split."""
        await self._change(rollout, Traffic(), {STABLE: rollout.candidate})

    async def withdraw(self, rollout: Rollout) -> None:
        """Gives the stable version all calls, and ends the split. A model that is gone needs none of that."""
        try:
            await self._change(rollout, Traffic(), {})
        except NotFound:
            return

    async def _change(self, rollout: Rollout, traffic: Traffic, aliases: dict[str, int]) -> None:
        model = await self._models.get(rollout.tenant_id, rollout.model_id)
        wanted = replace(model, traffic=traffic, aliases={**model.aliases, **aliases})
        if wanted != model:
            await self._models.update(wanted)
