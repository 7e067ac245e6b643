"""detection's gRPC face: protobuf in, domain call, protobuf out."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING, Any

from facetmesh.detection import messages, priorities
from facetmesh.detection.frames import Frames
from facetmesh.detection.model_servicer import ids
from facetmesh.detection.v1 import detection_pb2, detection_pb2_grpc
from facetmesh.kit import audit, status
from facetmesh.kit.errors import FacetmeshError, InvalidArgument

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from facetmesh.detection.answers import Answers
    from facetmesh.detection.detector import Image, Options
    from facetmesh.detection.fetching import Fetcher
    from facetmesh.detection.versions import Version
    from facetmesh.kit.audit import Recorder

_STREAM = "facetmesh.detection.v1.DetectionService/DetectStream"


class DetectionServicer(detection_pb2_grpc.DetectionServiceServicer):
    """Serves facetmesh.detection.v1.DetectionService.

    Args:
        answers: Finds objects with the tenants' models.
        fetcher: Fetches images that are given by their address.
        recorder: Takes the audit events of a stream's frames.
    """

    def __init__(self, answers: Answers, fetcher: Fetcher, recorder: Recorder) -> None:
        self._answers = answers
        self._fetcher = fetcher
        self._recorder = recorder

    async def Detect(self, request: detection_pb2.DetectRequest, _: Any) -> detection_pb2.DetectResponse:
        """Finds objects in an image."""
        record = audit.current()
        image = await self._image(request)
        try:
            version = await self._answers.choose(
                *ids(request.model), request.version, _sticky(request.sticky_key), lambda: image.digest
            )
            _describe(record, version)
            # Read once more for its digest when the runner has it, and not before: the answer is there the sooner.
            asyncio.get_running_loop().call_later(0, lambda: image.digest)
            with priorities.at(request.priority):
                response = await self._respond(version, image, messages.options(request))
        finally:
            record.describe(inputs=[image.digest])
        record.describe(output=_digest(response))
        response.receipt = record.receipt
        return response

    async def BatchDetect(
        self, request: detection_pb2.BatchDetectRequest, _: Any
    ) -> detection_pb2.BatchDetectResponse:
        """Finds objects in several images."""
        first = request.requests[0]
        if any((one.model, one.version) != (request.model, first.version) for one in request.requests):
            raise InvalidArgument("requests: all must name the batch's model, and one version.", reason="FIELD_INVALID")
        record = audit.current()
        version = await self._answers.choose(*ids(request.model), first.version, _sticky(first.sticky_key))
        _describe(record, version)
        found = await asyncio.gather(*(self._result(version, one) for one in request.requests))
        record.describe(inputs=[digest for digest, _ in found if digest])
        response = detection_pb2.BatchDetectResponse(results=[result for _, result in found])
        record.describe(output=_digest(response))
        response.receipt = record.receipt
        return response

    async def DetectStream(
        self, requests: AsyncIterator[detection_pb2.DetectStreamRequest], _: Any
    ) -> AsyncIterator[detection_pb2.DetectStreamResponse]:
        """Finds objects in the frames of a video."""
        settings = (await anext(requests)).settings
        options = messages.options(settings.options)
        version = await self._answers.choose(*ids(settings.model), settings.version, _sticky(settings.sticky_key))
        call = audit.current()
        _describe(call, version)

        async def work(frame: detection_pb2.Frame) -> detection_pb2.DetectResponse:
            async with self._recorder.record(method=_STREAM, tenant=call.tenant, subject=call.subject) as record:
                image = messages.image(frame)
                record.describe(resource=settings.model, inputs=[image.digest])
                _describe(record, version)
                with priorities.at(settings.priority):
                    response = await self._respond(version, image, options)
                record.describe(output=_digest(response))
            response.receipt = record.receipt
            return response

        frames = Frames(
            _frames(requests), work, name=lambda frame: frame.frame_id, size=lambda frame: frame.ByteSize(),
            newest=settings.late == detection_pb2.StreamSettings.LATE_DROP, max_wait_s=settings.max_wait_ms / 1000,
        )  # fmt: skip
        async for frame in frames.answers():
            answer = detection_pb2.DetectStreamResponse(frame_id=frame.name)
            if frame.answer is not None:
                answer.response.CopyFrom(frame.answer)
            elif frame.error is not None:
                answer.status.CopyFrom(status.to_status(frame.error))
            else:
                answer.dropped = frame.dropped
            yield answer

    async def _result(
        self, version: Version, request: detection_pb2.DetectRequest
    ) -> tuple[bytes, detection_pb2.BatchDetectResult]:
        """An image of a batch: its digest, which is empty where there was no image to be had, and what came of it."""
        digest = b""
        try:
            image = await self._image(request)
            digest = image.digest
            with priorities.at(request.priority):
                response = await self._respond(version, image, messages.options(request))
        except FacetmeshError as error:
            return digest, detection_pb2.BatchDetectResult(status=status.to_status(error))
        return digest, detection_pb2.BatchDetectResult(response=response)

    async def _respond(self, version: Version, image: Image, options: Options) -> detection_pb2.DetectResponse:
        return messages.response(await self._answers.detect(version, image, options), version)

    async def _image(self, request: detection_pb2.DetectRequest) -> Image:
        if request.image_uri:
            return await self._fetcher.fetch(f"tenants/{ids(request.model)[0]}", request.image_uri)
        return messages.image(request)


async def _frames(
    requests: AsyncIterator[detection_pb2.DetectStreamRequest],
) -> AsyncIterator[detection_pb2.Frame]:
    async for request in requests:
        if not request.HasField("frame"):
            raise InvalidArgument("Only the first message has settings.", reason="SETTINGS_REPEATED")
        yield request.frame


def _sticky(key: str) -> str:
    return key or audit.current().subject


def _describe(record: audit.Record, version: Version) -> None:
    record.describe(model_version=version.name, model_sha256=version.sha256)


def _digest(response: detection_pb2.DetectResponse | detection_pb2.BatchDetectResponse) -> bytes:
    """SHA-256 of an answer without its receipt's name, which is not part of what it vouches for."""
    return hashlib.sha256(response.SerializeToString(deterministic=True)).digest()
