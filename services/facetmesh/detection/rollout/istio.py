"""The Istio executor: calls are split between the subsets v1 and v2 by a route in the VirtualServices of detection.

v1 answers with the alias stable, v2 with the alias canary, which is the candidate
while a rollout goes on. Copies of calls are v1's own affair: it compares them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from facetmesh.detection.models import STABLE
from facetmesh.detection.rollout import routes
from facetmesh.detection.splits import Traffic
from facetmesh.kit.errors import FailedPrecondition, NotFound

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from facetmesh.detection.models import Models
    from facetmesh.detection.rollout.record import Rollout

CANARY = "canary"
"""The alias that v2 answers with."""
GATEWAY, MESH = "detection-ingress", "detection"
"""The VirtualServices of calls from outside, which carry their tenant's claim, and of those between services."""


class Resources(Protocol):
    """Kubernetes' API."""

    async def get(self, path: str) -> dict[str, Any]:
        """A resource."""
        ...

    async def apply(self, path: str, fields: Mapping[str, Any]) -> None:
        """Has the server make these fields of a resource so."""


class Istio:
    """Splits calls by weights of subsets.

    Args:
        models: The models.
        resources: Kubernetes' API.
        namespace: Where the VirtualServices are.
    """

    def __init__(self, models: Models, resources: Resources, namespace: str) -> None:
        self._models = models
        self._resources = resources
        self._folder = f"/apis/networking.istio.io/v1/namespaces/{namespace}/virtualservices"

    async def apply(self, rollout: Rollout) -> None:
        """Has the calls split as the rollout's current step says. v2 knows its version before it gets calls."""
        step = rollout.current
        shadow = str(rollout.candidate) if step.shadow_percent else ""
        await self._change(rollout, Traffic((), "none" if shadow else "caller", shadow, step.shadow_percent),
                           {CANARY: rollout.candidate})  # fmt: skip
        await self._route(rollout, step.percent)

    async def promote(self, rollout: Rollout) -> None:
        """Makes the candidate the stable version, and then ends the split."""
        await self._change(rollout, Traffic(), {STABLE: rollout.candidate})
        await self._route(rollout, 0)
        await self._change(rollout, Traffic(), {CANARY: None})

    async def withdraw(self, rollout: Rollout) -> None:
        """Gives the stable version all calls, and then ends the split. A model that is gone needs less of that."""
        await self._route(rollout, 0)
        try:
            await self._change(rollout, Traffic(), {CANARY: None})
        except NotFound:
            return

    async def _change(self, rollout: Rollout, traffic: Traffic, aliases: Mapping[str, int | None]) -> None:
        model = await self._models.get(rollout.tenant_id, rollout.model_id)
        named = {alias: number for alias, number in {**model.aliases, **aliases}.items() if number is not None}
        wanted = replace(model, traffic=traffic, aliases=named)
        if wanted != model:
            await self._models.update(wanted)

    async def _route(self, rollout: Rollout, percent: int) -> None:
        for name in (GATEWAY, MESH):
            path = f"{self._folder}/{name}"
            try:
                found = await self._resources.get(path)
            except NotFound:
                if percent:
                    raise
                continue  # with it went the route
            try:
                there: Sequence[Mapping[str, Any]] = found["spec"]["http"]
                wanted = (
                    routes.with_rollout(there, rollout, percent, claims=name == GATEWAY)
                    if percent
                    else routes.without_rollout(there, rollout)
                )
            except (StopIteration, KeyError):
                raise FailedPrecondition(
                    f"The VirtualService {name} has no route named split between the subsets v1 and v2.",
                    reason="ROUTE_MISSING",
                ) from None
            if wanted != there:
                version = found["metadata"]["resourceVersion"]
                await self._resources.apply(path, {
                    "apiVersion": found["apiVersion"], "kind": found["kind"],
                    "metadata": {"name": name, "resourceVersion": version}, "spec": {"http": wanted},
                })  # fmt: skip
