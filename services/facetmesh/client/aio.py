"""The client for asyncio. `facetmesh.client.Client` is the same for programs without."""

from __future__ import annotations

import uuid
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import grpc

from facetmesh.audit.v1 import audit_pb2_grpc
from facetmesh.auth.v1 import auth_pb2, auth_pb2_grpc, limits_pb2_grpc, policy_pb2_grpc
from facetmesh.client import calls
from facetmesh.client.administration import Administration
from facetmesh.client.auditing import Auditing
from facetmesh.client.channels import open_channel
from facetmesh.client.consenting import Consenting
from facetmesh.client.detecting import Detecting
from facetmesh.client.endpoints import Endpoints
from facetmesh.client.governance import Governance
from facetmesh.client.modelling import Modelling
from facetmesh.client.rolling import Rolling
from facetmesh.client.tokens import TokenSource, with_token
from facetmesh.detection.v1 import detection_pb2_grpc, model_pb2_grpc, rollout_pb2_grpc
from facetmesh.fusion.v1 import consent_pb2_grpc, fusion_pb2, fusion_pb2_grpc
from facetmesh.kit import status
from facetmesh.kit.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from types import TracebackType

    from google.longrunning import operations_pb2


_WAIT_S = 30


@dataclass(frozen=True, slots=True)
class FusedImage:
    """The result of a fusion."""

    fusion: fusion_pb2.Fusion
    """How it was made."""
    content: bytes
    """The image file."""


class AsyncClient(Administration, Modelling, Rolling, Detecting, Consenting, Auditing, Governance):
    """Calls a mesh.

    Every method raises the class of `facetmesh.client` that is named after the
    gRPC status code, with `reason`, `metadata` and `retry_after_s` as the
    service gave them. What may be repeated is, while a service is UNAVAILABLE,
    until its deadline.

    Names may be given whole (`tenants/acme/models/faces`) or, within the key's
    own tenant, by their last part (`faces`).

    Args:
        key: An API key; None for what needs none, such as `checkpoint`.
        endpoints: Where the services are; the mesh on this machine when None.
    """

    def __init__(self, key: str | None = None, endpoints: Endpoints | None = None) -> None:
        self._endpoints = endpoints or Endpoints.default()
        self._key = key
        self._stack = AsyncExitStack()
        self._source: TokenSource | None = None

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
        self._audit = audit_pb2_grpc.AuditServiceStub(await channel(where.audit))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None,
    ) -> None:
        """Closes the connections."""
        await self._stack.aclose()

    async def token(self) -> auth_pb2.IssueTokenResponse:
        """The token that calls carry now: whose it is, what it may do, and until when."""
        if self._source is None:
            raise InvalidArgument("The client has no key to exchange for a token.", reason="KEY_MISSING")
        return await self._source.get()

    # Fusion.

    async def create_fusion(
        self,
        source: bytes,
        target: bytes,
        *,
        face_model: str,
        source_face_index: int = 0,
        target_face_index: int = 0,
        consent: str = "",
        priority: str = "standard",
        request_id: str | None = None,
    ) -> operations_pb2.Operation:
        """Starts to put the face of one photo into another; `wait_fusion` gets the result.

        Args:
            source: The photo that gives the face: a JPEG, PNG or WebP file.
            target: The photo that receives it.
            face_model: The tenant's model that finds the faces, by name or id.
            source_face_index: Which face is taken; 0 is the largest.
            target_face_index: Which face is replaced; 0 is the largest.
            consent: The consent of whose face is taken, by name or id (`create_consent`).
            priority: How urgent it is among the tenant's own: vip, standard or batch.
            request_id: A UUID; a second call with the same one returns the first one's operation.
        """
        fusion = fusion_pb2.Fusion(
            source_image=source, target_image=target, face_model=await self._name("models", face_model),
            source_face_index=source_face_index, target_face_index=target_face_index,
            consent=await self._name("consents", consent) if consent else "", priority=calls.priority(priority),
        )
        request = fusion_pb2.CreateFusionRequest(
            parent=await self._parent(None), fusion=fusion, request_id=request_id or str(uuid.uuid4()),
        )
        return await calls.result(self._fusion.CreateFusion(request))

    async def wait_fusion(
        self, operation: str, *, progress: Callable[[fusion_pb2.FusionMetadata], None] | None = None,
    ) -> fusion_pb2.Fusion:
        """Returns the fusion once its operation is done.

        Args:
            operation: The operation's name or id.
            progress: Is told how far it is, each time that there is news.

        Raises:
            FacetmeshError: What the operation ended with.
        """
        request = fusion_pb2.WaitOperationRequest(name=await self._name("operations", operation))
        request.timeout.seconds = 1 if progress else _WAIT_S
        while True:
            now = await calls.result(self._fusion.WaitOperation(request))
            if progress:
                metadata = fusion_pb2.FusionMetadata()
                now.metadata.Unpack(metadata)
                progress(metadata)
            if now.done:
                return calls.fusion_of(now)

    async def get_operation(self, operation: str) -> operations_pb2.Operation:
        """Returns an operation."""
        request = fusion_pb2.GetOperationRequest(name=await self._name("operations", operation))
        return await calls.result(self._fusion.GetOperation(request))

    async def list_operations(self, *, limit: int | None = None) -> list[operations_pb2.Operation]:
        """The tenant's operations, the newest first."""
        request = fusion_pb2.ListOperationsRequest(parent=await self._parent(None))
        return await calls.pages(self._fusion.ListOperations, request, "operations", limit)

    async def cancel_operation(self, operation: str) -> operations_pb2.Operation:
        """Asks a running operation to stop."""
        request = fusion_pb2.CancelOperationRequest(name=await self._name("operations", operation))
        return await calls.result(self._fusion.CancelOperation(request))

    async def watch_operation(self, operation: str) -> AsyncIterator[operations_pb2.Operation]:
        """An operation as it is, and again with each change, until it is done."""
        request = fusion_pb2.WatchOperationRequest(name=await self._name("operations", operation))
        try:
            async for now in self._fusion.WatchOperation(request):
                yield now
        except grpc.aio.AioRpcError as error:
            raise status.from_rpc_error(error) from None

    async def delete_fusion(self, fusion: str) -> None:
        """Deletes a fused image for good, by name or id; `look_up_fusion` still answers for it."""
        request = fusion_pb2.DeleteFusionRequest(name=await self._name("fusions", fusion))
        await calls.result(self._fusion.DeleteFusion(request))

    async def look_up_fusion(self, image: bytes) -> list[fusion_pb2.FusionMatch]:
        """The tenant's fusions that a picture may be, the likeliest first: the file itself, or a copy saved anew."""
        request = fusion_pb2.LookUpFusionRequest(parent=await self._parent(None), image=image)
        return list((await calls.result(self._fusion.LookUpFusion(request))).matches)

    async def download_fusion(self, fusion: str) -> bytes:
        """The image file of a fusion."""
        request = fusion_pb2.DownloadFusionRequest(name=await self._name("fusions", fusion))
        content = bytearray()
        try:
            async for part in self._fusion.DownloadFusion(request):
                content += part.data
        except grpc.aio.AioRpcError as error:
            raise status.from_rpc_error(error) from None
        return bytes(content)

    async def fuse(
        self,
        source: bytes,
        target: bytes,
        *,
        face_model: str,
        source_face_index: int = 0,
        target_face_index: int = 0,
        consent: str = "",
        priority: str = "standard",
        progress: Callable[[fusion_pb2.FusionMetadata], None] | None = None,
    ) -> FusedImage:
        """`create_fusion`, `wait_fusion` and `download_fusion` in one."""
        operation = await self.create_fusion(
            source, target, face_model=face_model, source_face_index=source_face_index,
            target_face_index=target_face_index, consent=consent, priority=priority,
        )
        fusion = await self.wait_fusion(operation.name, progress=progress)
        return FusedImage(fusion, await self.download_fusion(fusion.name))

    # The audit log.

    async def _parent(self, tenant: str | None) -> str:
        """The tenant's resource name; the key's own tenant when None."""
        if tenant is not None:
            return calls.tenant_name(tenant)
        if own := (await self.token()).tenant:
            return own
        raise InvalidArgument("The key belongs to no tenant: name one.", reason="TENANT_MISSING")

    async def _name(self, collection: str, name: str) -> str:
        """A whole resource name."""
        return name if "/" in name else f"{await self._parent(None)}/{collection}/{name}"
