"""The client's calls that fuse faces."""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from facetmesh.client import calls
from facetmesh.client.fusion_options import PLAIN, FusionOptions
from facetmesh.fusion.v1 import fusion_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from datetime import timedelta

    from google.longrunning import operations_pb2

_WAIT_S = 30


@dataclass(frozen=True, slots=True)
class FusedImage:
    """The result of a fusion."""

    fusion: fusion_pb2.Fusion
    """How it was made."""
    content: bytes
    """The image file."""


class Fusing(ABC):
    """What AsyncClient can do with fusions."""

    _fusion: Any  # fusion_pb2_grpc.FusionServiceStub, whose stubs differ for grpc.aio

    async def create_fusion(
        self,
        source: bytes | str,
        target: bytes | str,
        *,
        face_model: str,
        consent: str = "",
        priority: str = "standard",
        options: FusionOptions = PLAIN,
        request_id: str | None = None,
    ) -> operations_pb2.Operation:
        """Starts to put the face of one photo into another; `wait_fusion` gets the result.

        Args:
            source: The photo that gives the face: a JPEG, PNG or WebP file, or the name of one that was uploaded
                (images/…) or made (fusions/…).
            target: The photo that receives it.
            face_model: The tenant's model that finds the faces, by name or id.
            consent: The consent of whose face is taken, by name or id (`create_consent`).
            priority: How urgent it is among the tenant's own: vip, standard or batch.
            options: Which faces, and how they are put in.
            request_id: A UUID; a second call with the same one returns the first one's operation.
        """
        fusion = fusion_pb2.Fusion(
            face_model=await self._name("models", face_model),
            consent=await self._name("consents", consent) if consent else "",
            priority=calls.enum_value(fusion_pb2.Priority, "PRIORITY", priority),
        )
        for which, picture in (("source", source), ("target", target)):
            if isinstance(picture, str):
                setattr(fusion, f"{which}_name", await self._picture(picture))
            else:
                setattr(fusion, f"{which}_image", picture)
        options.describe(fusion)
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
        with calls.stream(self._fusion.WatchOperation(request)) as changes:
            async for now in changes:
                yield now

    async def delete_fusion(self, fusion: str) -> None:
        """Deletes a fused image for good, by name or id; `look_up_fusion` still answers for it."""
        request = fusion_pb2.DeleteFusionRequest(name=await self._name("fusions", fusion))
        await calls.result(self._fusion.DeleteFusion(request))

    async def look_up_fusion(self, image: bytes) -> list[fusion_pb2.FusionMatch]:
        """The tenant's fusions that a picture may be, the likeliest first: the file itself, or a copy saved anew."""
        request = fusion_pb2.LookUpFusionRequest(parent=await self._parent(None), image=image)
        return list((await calls.result(self._fusion.LookUpFusion(request))).matches)

    async def link_fusion(self, fusion: str, *, lifetime: timedelta | None = None) -> fusion_pb2.FusionLink:
        """A link by which anybody fetches a fused image through the gateway, without a token.

        Args:
            fusion: Its name or id.
            lifetime: For how long: an hour at most, ten minutes when None.
        """
        request = fusion_pb2.LinkFusionRequest(name=await self._name("fusions", fusion))
        if lifetime is not None:
            request.lifetime.FromTimedelta(lifetime)
        return await calls.result(self._fusion.LinkFusion(request))

    async def download_fusion(self, fusion: str) -> bytes:
        """The image file of a fusion."""
        request = fusion_pb2.DownloadFusionRequest(name=await self._name("fusions", fusion))
        content = bytearray()
        with calls.stream(self._fusion.DownloadFusion(request)) as parts:
            async for part in parts:
                content += part.data
        return bytes(content)

    async def fuse(
        self,
        source: bytes | str,
        target: bytes | str,
        *,
        face_model: str,
        consent: str = "",
        priority: str = "standard",
        options: FusionOptions = PLAIN,
        progress: Callable[[fusion_pb2.FusionMetadata], None] | None = None,
    ) -> FusedImage:
        """`create_fusion`, `wait_fusion` and `download_fusion` in one."""
        operation = await self.create_fusion(
            source, target, face_model=face_model, consent=consent, priority=priority, options=options,
        )
        fusion = await self.wait_fusion(operation.name, progress=progress)
        return FusedImage(fusion, await self.download_fusion(fusion.name))

    async def _picture(self, name: str) -> str:
        """A whole resource name of an upload or a fusion."""
        return name if name.startswith("tenants/") else f"{await self._parent(None)}/{name}"

    @abstractmethod
    async def _parent(self, tenant: str | None) -> str: ...

    @abstractmethod
    async def _name(self, collection: str, name: str) -> str: ...
