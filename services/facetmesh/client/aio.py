"""The client for asyncio. `facetmesh.client.Client` is the same for programs without."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, NoReturn, Self

from facetmesh.audit.v1 import audit_pb2_grpc
from facetmesh.auth.v1 import auth_pb2, auth_pb2_grpc, limits_pb2_grpc, policy_pb2_grpc
from facetmesh.client import calls
from facetmesh.client.administration import Administration
from facetmesh.client.auditing import Auditing
from facetmesh.client.channels import open_channel
from facetmesh.client.consenting import Consenting
from facetmesh.client.detecting import Detecting
from facetmesh.client.endpoints import Endpoints
from facetmesh.client.fusing import Fusing
from facetmesh.client.governance import Governance
from facetmesh.client.modelling import Modelling
from facetmesh.client.rolling import Rolling
from facetmesh.client.tokens import TokenSource, with_token
from facetmesh.client.uploading import Uploading
from facetmesh.detection.v1 import detection_pb2_grpc, model_pb2_grpc, rollout_pb2_grpc
from facetmesh.fusion.v1 import consent_pb2_grpc, fusion_pb2_grpc, image_pb2_grpc
from facetmesh.kit.errors import InvalidArgument

if TYPE_CHECKING:
    from types import TracebackType

    import grpc


class _NotOpen:
    """In place of the stubs, until there are connections."""

    def __getattr__(self, method: str) -> NoReturn:
        raise _not_open()


_NOT_OPEN: Any = _NotOpen()


class AsyncClient(
    Administration, Modelling, Rolling, Detecting, Consenting, Uploading, Fusing, Auditing, Governance
):
    """Calls a mesh.

    Every method raises the class of `facetmesh.client` that is named after the
    gRPC status code, with `reason`, `metadata` and `retry_after_s` as the
    service gave them. What may be repeated is, three times within two seconds,
    while a service is UNAVAILABLE; what a limit refuses is not: how long to wait
    is the caller's to say.

    Names may be given whole (`tenants/acme/models/faces`) or, within the key's
    own tenant, by their last part (`faces`). It is open within `async with`,
    and raises RuntimeError elsewhere.

    Args:
        key: An API key; None for what needs none, such as `checkpoint`.
        endpoints: Where the services are; the mesh on this machine when None.
    """

    def __init__(self, key: str | None = None, endpoints: Endpoints | None = None) -> None:
        self._endpoints = endpoints or Endpoints.default()
        self._key = key
        self._stack = AsyncExitStack()
        self._source: TokenSource | None = None
        self._auth = self._policies = self._usage = self._detection = self._models = self._rollouts = _NOT_OPEN
        self._fusion = self._consents = self._images = self._audit = _NOT_OPEN

    async def __aenter__(self) -> Self:
        """Opens the connections."""
        where = self._endpoints
        interceptors: list[grpc.aio.ClientInterceptor] = []
        if self._key is not None:
            plain = await self._stack.enter_async_context(open_channel(where.auth, where.tls))
            self._source = TokenSource(plain, self._key)
            interceptors += with_token(self._source)

        async def channel(address: str) -> grpc.aio.Channel:
            return await self._stack.enter_async_context(open_channel(address, where.tls, interceptors))

        auth = await channel(where.auth)
        self._auth = auth_pb2_grpc.AuthServiceStub(auth)
        self._policies = policy_pb2_grpc.PolicyServiceStub(auth)
        self._usage = limits_pb2_grpc.UsageServiceStub(auth)
        detection = await channel(where.detection)
        self._detection = detection_pb2_grpc.DetectionServiceStub(detection)
        self._models = model_pb2_grpc.ModelServiceStub(detection)
        self._rollouts = rollout_pb2_grpc.RolloutServiceStub(detection)
        fusion = await channel(where.fusion)
        self._fusion = fusion_pb2_grpc.FusionServiceStub(fusion)
        self._consents = consent_pb2_grpc.ConsentServiceStub(fusion)
        self._images = image_pb2_grpc.ImageServiceStub(fusion)
        self._audit = audit_pb2_grpc.AuditServiceStub(await channel(where.audit))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None,
    ) -> None:
        """Closes the connections."""
        await self._stack.aclose()

    async def token(self) -> auth_pb2.IssueTokenResponse:
        """The token that calls carry now: whose it is, what it may do, and until when."""
        if self._source is None and self._key is not None:
            raise _not_open()
        if self._source is None:
            raise InvalidArgument("The client has no key to exchange for a token.", reason="KEY_MISSING")
        return await self._source.get()

    async def _parent(self, tenant: str | None) -> str:
        """The tenant's resource name; the key's own tenant when None."""
        if tenant is not None:
            return calls.tenant_name(tenant)
        if own := (await self.token()).tenant:
            return own
        raise InvalidArgument("The key belongs to no tenant: say which is meant.", reason="TENANT_MISSING")

    async def _name(self, collection: str, name: str) -> str:
        """A whole resource name."""
        return name if "/" in name else f"{await self._parent(None)}/{collection}/{name}"


def _not_open() -> RuntimeError:
    return RuntimeError("The client is not open: use it within `async with AsyncClient(…) as client:`.")
