"""The tenants' pictures that fusions may name: what they uploaded, and what was made for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from facetmesh.fusion.operations import Ref
from facetmesh.kit.errors import NotFound

if TYPE_CHECKING:
    from facetmesh.fusion.fusions import Fusions
    from facetmesh.fusion.uploads import Uploads


class Pictures:
    """What can be named in place of a file.

    Args:
        uploads: What was uploaded.
        fusions: What was made.
    """

    def __init__(self, uploads: Uploads, fusions: Fusions) -> None:
        self._uploads = uploads
        self._fusions = fusions

    async def read(self, tenant_id: str, name: str) -> bytes:
        """The file of tenants/{tenant}/images/{image} or tenants/{tenant}/fusions/{fusion}.

        Raises:
            NotFound: The tenant has none of that name (IMAGE_NOT_FOUND for an upload).
            FailedPrecondition: FUSION_NOT_READY.
        """
        _, owner, kind, last = name.split("/")
        if owner != tenant_id:  # who may act for several tenants does not mix their pictures
            raise NotFound("There is no such picture in this tenant.")
        if kind == "images":
            return await self._uploads.read(tenant_id, last)
        _, file = await self._fusions.download(Ref(tenant_id, last))
        return file
