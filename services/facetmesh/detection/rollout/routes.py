"""A rollout's route in an Istio VirtualService: by the model's name and its tenant, weighted between the subsets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from facetmesh.detection.rollout.plan import WHOLE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from facetmesh.detection.rollout.record import Rollout

Route = dict[str, Any]
MODEL_HEADER = "x-facetmesh-model"
"""The model's name, which our clients send, because gateways cannot read bodies."""
TENANT_HEADER = "x-facetmesh-tenant"
"""The tenant's claim of the token that the gateway verified."""
STABLE_SUBSET, CANDIDATE_SUBSET = "v1", "v2"
_AHEAD = {"testers", "rehearsal"}
"""Routes of calls that ask for them by a header."""
_SPLIT = "split"
"""The route that all other calls of detection take: what it says of retries and timeouts is ours, too."""


def with_rollout(routes: Sequence[Mapping[str, Any]], rollout: Rollout, percent: int, *, claims: bool) -> list[Route]:
    """The routes with the rollout's own, before those that take all calls; after those for testers and rehearsals.

    Args:
        routes: What there is.
        rollout: Which.
        percent: Of 100 calls, how many the candidate's subset gets.
        claims: Whether calls carry the claim of their tenant: at the gateway they do.

    Raises:
        StopIteration: There is no route named split with both subsets.
    """
    rest = without_rollout(routes, rollout)
    split = next(one for one in rest if one.get("name") == _SPLIT)
    headers = {MODEL_HEADER: {"exact": rollout.name.partition("/rollouts/")[0]}}
    if claims:
        headers[TENANT_HEADER] = {"exact": f"tenants/{rollout.tenant_id}"}
    match = [{**one, "headers": {**one.get("headers", {}), **headers}} for one in split.get("match", [{}])]
    weights = {STABLE_SUBSET: WHOLE - percent, CANDIDATE_SUBSET: percent}
    own = {
        **split, "name": _name(rollout), "match": match,
        "route": [{**one, "weight": weights[one["destination"]["subset"]]} for one in split["route"]],
    }  # fmt: skip
    place = next(number for number, one in enumerate(rest) if one.get("name") not in _AHEAD)
    return [*rest[:place], own, *rest[place:]]


def without_rollout(routes: Sequence[Mapping[str, Any]], rollout: Rollout) -> list[Route]:
    """The routes without the rollout's own."""
    return [dict(one) for one in routes if one.get("name") != _name(rollout)]


def _name(rollout: Rollout) -> str:
    return f"rollout.{rollout.tenant_id}.{rollout.model_id}"
