"""What policies may want to know of a model beside its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from facetmesh.detection.models import STABLE
from facetmesh.kit.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from facetmesh.detection.models import Models


def facts(models: Models) -> Callable[[str], Awaitable[Mapping[str, str]]]:
    """What tells a model's stable version and its licence, by the model's name; nothing of what is not there."""

    async def known(name: str) -> Mapping[str, str]:
        tenant, _, model_id = name.partition("/models/")
        tenant_id = tenant.removeprefix("tenants/")
        try:
            version = await models.choose(tenant_id, model_id, STABLE)
        except NotFound:
            return {}
        return {"version": str(version.number), "licence": version.licence}

    return known
