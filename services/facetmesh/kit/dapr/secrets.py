"""The sidecar's secret store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import grpc.aio

from facetmesh.kit.dapr.calls import our_errors
from facetmesh.kit.errors import FacetmeshError, FailedPrecondition

if TYPE_CHECKING:
    from facetmesh.kit.dapr.calls import Client


class Secrets:
    """The secrets that this service may see.

    Args:
        client: The sidecar.
        store: The component's name.
        bundle: The one secret of the store that holds all of ours, a key each; "" where each is one of its own.
    """

    def __init__(self, client: Client, store: str, bundle: str = "") -> None:
        self._client = client
        self._store = store
        self._bundle = bundle

    async def get(self, name: str) -> str:
        """A secret's text.

        Raises:
            FailedPrecondition: There is no such secret, or no such store for us.
            Unavailable: The sidecar does not answer.
        """
        try:
            with our_errors("The secret store"):
                found = await self._client.get_secret(self._store, self._bundle or name)
        except FacetmeshError as error:
            cause = error.__cause__
            # Whatever a store says of a secret that is not there, daprd answers INTERNAL.
            if isinstance(cause, grpc.aio.AioRpcError) and cause.code() is grpc.StatusCode.INTERNAL:
                raise _missing(name) from error
            raise
        if name not in found.secret:
            raise _missing(name)
        return str(found.secret[name])


def _missing(name: str) -> FailedPrecondition:
    return FailedPrecondition(f"The secret {name} is missing.", reason="SECRET_MISSING", metadata={"secret": name})
