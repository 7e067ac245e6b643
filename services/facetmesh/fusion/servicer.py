"""fusion's gRPC face: protobuf in, domain call, protobuf out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.api import httpbody_pb2
from google.longrunning import operations_pb2
from google.protobuf import empty_pb2

from facetmesh.fusion.choices import BACKENDS, describe, options_of
from facetmesh.fusion.faces import Pick
from facetmesh.fusion.fusions import Wish
from facetmesh.fusion.line import Priority
from facetmesh.fusion.links import Maker
from facetmesh.fusion.operations import Caller, Ref, Stage
from facetmesh.fusion.v1 import fusion_pb2, fusion_pb2_grpc
from facetmesh.kit import audit, identity, status, telemetry
from facetmesh.kit.errors import NotFound
from facetmesh.kit.index import page

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from google.protobuf.timestamp_pb2 import Timestamp

    from facetmesh.fusion.dispatcher import Standing
    from facetmesh.fusion.fusions import Fusions
    from facetmesh.fusion.line import Ticket
    from facetmesh.fusion.links import Links
    from facetmesh.fusion.lookups import Lookups
    from facetmesh.fusion.operations import Box, Operation
    from facetmesh.fusion.pictures import Pictures

CHUNK_BYTES = 256 * 1024
_DEFAULT_WAIT_S = 30.0
_LINK_S = 600.0
_STAGES = {
    Stage.QUEUED: fusion_pb2.FusionMetadata.STAGE_QUEUED,
    Stage.DETECTING: fusion_pb2.FusionMetadata.STAGE_DETECTING,
    Stage.FUSING: fusion_pb2.FusionMetadata.STAGE_FUSING,
    Stage.STORING: fusion_pb2.FusionMetadata.STAGE_STORING,
    Stage.DONE: fusion_pb2.FusionMetadata.STAGE_DONE,
}

_PRIORITIES = {
    fusion_pb2.PRIORITY_UNSPECIFIED: Priority.STANDARD,
    fusion_pb2.PRIORITY_VIP: Priority.VIP,
    fusion_pb2.PRIORITY_STANDARD: Priority.STANDARD,
    fusion_pb2.PRIORITY_BATCH: Priority.BATCH,
}
_WIRE_PRIORITIES = {priority: wire for wire, priority in _PRIORITIES.items()}

_WIRE_BACKENDS = {backend: wire for wire, backend in BACKENDS.items()}


class FusionServicer(fusion_pb2_grpc.FusionServiceServicer):
    """Serves facetmesh.fusion.v1.FusionService.

    Args:
        fusions: The fusions of all tenants.
        pictures: What fusions may name in place of a file.
        links: Leave to fetch what was made.
        lookups: Finds them by what was made.
        standing: How long a job that waits has to, as far as is known.
    """

    def __init__(
        self,
        fusions: Fusions,
        pictures: Pictures,
        links: Links,
        lookups: Lookups,
        standing: Callable[[Ticket], Standing | None],
    ) -> None:
        self._fusions = fusions
        self._pictures = pictures
        self._links = links
        self._lookups = lookups
        self._standing = standing

    async def CreateFusion(self, request: fusion_pb2.CreateFusionRequest, _: Any) -> operations_pb2.Operation:
        """Starts a fusion."""
        fusion, tenant_id = request.fusion, request.parent.rpartition("/")[2]
        source, target = fusion.source_image, fusion.target_image
        if fusion.source_name:
            source = await self._pictures.read(tenant_id, fusion.source_name)
        if fusion.target_name:
            target = await self._pictures.read(tenant_id, fusion.target_name)
        options = options_of(fusion)
        referring = options.targets.pick is Pick.REFERENCE
        operation = await self._fusions.create(
            tenant_id,
            source,
            target,
            Wish(
                fusion.face_model, fusion.source_face_index, fusion.target_face_index, fusion.consent,
                _PRIORITIES[fusion.priority],
                options,
                fusion.target_selection.reference_image if referring else b"",
            ),
            caller=Caller(identity.current().subject, telemetry.carrier().get("traceparent", "")),
            request_id=request.request_id,
        )
        audit.current().describe(resource=operation.fusion_name, inputs=operation.job.inputs)
        return self._operation(operation)

    async def GetOperation(self, request: fusion_pb2.GetOperationRequest, _: Any) -> operations_pb2.Operation:
        """Returns an operation."""
        return self._operation(await self._fusions.get(_ref(request.name)))

    async def ListOperations(
        self, request: fusion_pb2.ListOperationsRequest, _: Any
    ) -> fusion_pb2.ListOperationsResponse:
        """Lists a tenant's operations."""
        tenant_id = request.parent.rpartition("/")[2]
        ids, token = page(await self._fusions.ids(tenant_id), request.page_size, request.page_token)
        response = fusion_pb2.ListOperationsResponse(next_page_token=token)
        for operation_id in ids:
            try:
                response.operations.append(self._operation(await self._fusions.get(Ref(tenant_id, operation_id))))
            except NotFound:
                continue  # the index is a hint
        return response

    async def WaitOperation(self, request: fusion_pb2.WaitOperationRequest, _: Any) -> operations_pb2.Operation:
        """Waits for an operation."""
        timeout_s = request.timeout.ToTimedelta().total_seconds() if request.HasField("timeout") else _DEFAULT_WAIT_S
        return self._operation(await self._fusions.wait(_ref(request.name), timeout_s))

    async def CancelOperation(self, request: fusion_pb2.CancelOperationRequest, _: Any) -> operations_pb2.Operation:
        """Stops an operation."""
        return self._operation(await self._fusions.cancel(_ref(request.name)))

    async def DownloadFusion(
        self, request: fusion_pb2.DownloadFusionRequest, _: Any
    ) -> AsyncIterator[httpbody_pb2.HttpBody]:
        """Sends a fused image."""
        for part in _parts(*await self._fusions.download(_ref(request.name))):
            yield part

    async def LinkFusion(self, request: fusion_pb2.LinkFusionRequest, _: Any) -> fusion_pb2.FusionLink:
        """Makes a link."""
        lifetime_s = request.lifetime.ToTimedelta().total_seconds() if request.HasField("lifetime") else _LINK_S
        caller = identity.current()
        maker = Maker(caller.subject, caller.token_name, bound=bool(caller.certificate))
        operation = await self._fusions.made(_ref(request.name))
        link = await self._links.make(operation.ref, maker, lifetime_s)
        message = fusion_pb2.FusionLink(path=f"/v1/{operation.fusion_name}:fetch?token={link.token}")
        _set(message.expire_time, link.expires_s)
        return message

    async def FetchFusion(
        self, request: fusion_pb2.FetchFusionRequest, _: Any
    ) -> AsyncIterator[httpbody_pb2.HttpBody]:
        """Sends a fused image to who has a link."""
        ref = _ref(request.name)
        link = await self._links.check(ref, request.token)
        audit.current().identify(subject=link.maker.subject, tenant=f"tenants/{ref.tenant_id}")
        for part in _parts(*await self._fusions.download(ref)):
            yield part

    async def WatchOperation(
        self, request: fusion_pb2.WatchOperationRequest, _: Any
    ) -> AsyncIterator[operations_pb2.Operation]:
        """Streams an operation's changes."""
        told = None
        async for operation in self._fusions.follow(_ref(request.name)):
            if (message := self._operation(operation)) != told:
                yield message
                told = message

    async def DeleteFusion(self, request: fusion_pb2.DeleteFusionRequest, _: Any) -> empty_pb2.Empty:
        """Deletes a fused image."""
        await self._fusions.delete(_ref(request.name))
        return empty_pb2.Empty()

    async def LookUpFusion(
        self, request: fusion_pb2.LookUpFusionRequest, _: Any
    ) -> fusion_pb2.LookUpFusionResponse:
        """Says whether a picture was made here."""
        tenant_id = request.parent.rpartition("/")[2]
        response = fusion_pb2.LookUpFusionResponse()
        for match in await self._lookups.find(tenant_id, sha256=request.sha256, image=request.image):
            file = match.distance is None
            kind = fusion_pb2.FusionMatch.KIND_FILE if file else fusion_pb2.FusionMatch.KIND_SIMILAR
            response.matches.add(fusion=_fusion(match.operation), kind=kind, distance_bits=match.distance or 0)
        return response

    def _operation(self, operation: Operation) -> operations_pb2.Operation:
        message = operations_pb2.Operation(name=operation.name, done=operation.done)
        metadata = fusion_pb2.FusionMetadata(
            fusion=operation.fusion_name,
            stage=_STAGES[operation.stage],
            percent=operation.percent,
            attempts=operation.attempts,
        )
        _set(metadata.create_time, operation.created_s)
        if operation.ended_s is not None:
            _set(metadata.end_time, operation.ended_s)
        if operation.stage is Stage.QUEUED and (standing := self._standing(operation.ticket)) is not None:
            metadata.queue_position = standing.position
            if standing.wait_s is not None:
                metadata.estimated_wait.FromMilliseconds(int(standing.wait_s * 1000))
        message.metadata.Pack(metadata)
        if operation.failure is not None:
            message.error.CopyFrom(status.to_status(operation.failure.error()))
        elif operation.result is not None:
            message.response.Pack(_fusion(operation))
        return message


def _parts(media_type: str, image: bytes) -> Iterator[httpbody_pb2.HttpBody]:
    """A file in chunks, of which the first says what it is."""
    for start in range(0, len(image), CHUNK_BYTES):
        yield httpbody_pb2.HttpBody(content_type="" if start else media_type, data=image[start : start + CHUNK_BYTES])


def _ref(name: str) -> Ref:
    _, tenant_id, _, operation_id = name.split("/")
    return Ref(tenant_id, operation_id)


def _fusion(operation: Operation) -> fusion_pb2.Fusion:
    job, result = operation.job, operation.result
    assert result is not None  # noqa: S101 - the caller has looked
    message = fusion_pb2.Fusion(
        name=operation.fusion_name,
        face_model=job.face_model,
        source_face_index=job.source_face_index,
        target_face_index=job.target_face_index,
        source_face=_box(result.source_face),
        target_face=_box(result.target_face),
        media_type=result.media_type,
        size_bytes=result.size_bytes,
        sha256=result.sha256,
        receipt=result.receipt,
        consent=job.consent,
        priority=_WIRE_PRIORITIES[job.priority],
    )
    message.more_target_faces.extend(_box(box) for box in result.more_target_faces)
    for left in result.left_faces:
        message.left_faces.add(face=_box(left.box), reason=left.reason)
    describe(message, job.options)
    message.backend = _WIRE_BACKENDS[result.backend]
    for model in result.models:
        message.models.add(name=model.name, sha256=model.sha256, licence=model.licence)
    _set(message.create_time, operation.created_s)
    if operation.deleted_s is not None:
        _set(message.delete_time, operation.deleted_s)
    return message


def _box(box: Box) -> fusion_pb2.FaceBox:
    x_min, y_min, x_max, y_max = box
    return fusion_pb2.FaceBox(x_min=x_min, y_min=y_min, x_max=x_max, y_max=y_max)


def _set(time: Timestamp, seconds: float) -> None:
    time.FromMicroseconds(int(seconds * 1e6))
