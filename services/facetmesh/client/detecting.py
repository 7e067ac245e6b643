"""The client's calls that find objects in images."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable
from typing import TYPE_CHECKING, Any

from facetmesh.client import calls
from facetmesh.detection.v1 import detection_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

_MODEL_HEADER = "x-facetmesh-model"


class Detecting(ABC):
    """What AsyncClient can do with images."""

    _detection: Any  # detection_pb2_grpc.DetectionServiceStub, whose stubs differ for grpc.aio

    async def detect(  # noqa: PLR0913 - one for each field that is often set
        self,
        model: str,
        image: bytes | str,
        *,
        version: str = "",
        labels: Sequence[str] = (),
        min_confidence: float | None = None,
        iou_threshold: float | None = None,
        max_detections: int = 0,
        priority: int = 0,
        class_agnostic: bool = False,
    ) -> detection_pb2.DetectResponse:
        """Finds objects in an image.

        Args:
            model: The model's name or id.
            image: A JPEG, PNG or WebP file, or the https address of one.
            version: A version's number, or an alias; by the model's traffic when empty.
            labels: Only these; all when empty.
            min_confidence: Boxes below it are left out; the service's default when None.
            iou_threshold: Of two boxes of a class that overlap more, one is kept; the service's default when None.
            max_detections: At most this many; the service's default when 0.
            priority: Among the tenant's own calls that wait 1 goes first, 9 last; 5 when 0.
            class_agnostic: Whether boxes of different classes count as overlapping, too.
        """
        name = await self._name("models", model)
        request = detection_pb2.DetectRequest(
            model=name, version=version, labels=labels, min_confidence=min_confidence, iou_threshold=iou_threshold,
            max_detections=max_detections, priority=priority, class_agnostic=class_agnostic,
        )
        if isinstance(image, str):
            request.image_uri = image
        else:
            request.image = image
        return await calls.result(self._detection.Detect(request, metadata=_routed(name)))

    async def batch_detect(
        self, model: str, images: Sequence[bytes], *, version: str = "", priority: int = 0
    ) -> list[detection_pb2.BatchDetectResult]:
        """Finds objects in at most 32 images. Each result has a `response`, or a `status` that says what is wrong.

        Args:
            model: The model's name or id.
            images: JPEG, PNG or WebP files.
            version: A version's number, or an alias; by the model's traffic when empty.
            priority: Among the tenant's own calls that wait 1 goes first, 9 last; 5 when 0.
        """
        name = await self._name("models", model)
        requests = [
            detection_pb2.DetectRequest(model=name, image=image, version=version, priority=priority)
            for image in images
        ]
        request = detection_pb2.BatchDetectRequest(model=name, requests=requests)
        return list((await calls.result(self._detection.BatchDetect(request, metadata=_routed(name)))).results)

    async def detect_stream(
        self,
        model: str,
        frames: AsyncIterable[bytes] | Iterable[bytes],
        *,
        version: str = "",
        drop_late: bool = False,
        priority: int = 0,
    ) -> AsyncIterator[detection_pb2.DetectStreamResponse]:
        """Finds objects in the frames of a video, in their order; `frame_id` counts from 0.

        Args:
            model: The model's name or id.
            frames: JPEG, PNG or WebP files. An iterable that is not asynchronous is waited for on a thread.
            version: A version's number, or an alias; by the model's traffic when empty.
            drop_late: Whether only the newest frame is worked on where they come too fast; the others are answered
                as `dropped`.
            priority: Among the tenant's own calls that wait 1 goes first, 9 last; 5 when 0.

        Raises:
            Exception: What the frames raise.
        """
        name = await self._name("models", model)
        theirs: list[Exception] = []
        late = detection_pb2.StreamSettings.LATE_DROP if drop_late else detection_pb2.StreamSettings.LATE_WAIT
        settings = detection_pb2.StreamSettings(model=name, version=version, late=late, priority=priority)

        async def requests() -> AsyncIterator[detection_pb2.DetectStreamRequest]:
            yield detection_pb2.DetectStreamRequest(settings=settings)
            number = 0
            try:
                async for frame in _coming(frames):
                    yield detection_pb2.DetectStreamRequest(frame=detection_pb2.Frame(frame_id=number, image=frame))
                    number += 1
            except Exception as error:
                theirs.append(error)
                raise

        try:
            with calls.stream(self._detection.DetectStream(requests(), metadata=_routed(name))) as answers:
                async for answer in answers:
                    yield answer
        except asyncio.CancelledError:
            # gRPC cancels the call where the frames raise, and keeps to itself what.
            if theirs:
                raise theirs[0] from None
            raise

    @abstractmethod
    async def _name(self, collection: str, name: str) -> str:
        """A whole resource name."""


async def _coming(frames: AsyncIterable[bytes] | Iterable[bytes]) -> AsyncIterator[bytes]:
    """The frames, as they come."""
    if isinstance(frames, AsyncIterable):
        async for frame in frames:
            yield frame
        return
    following = iter(frames)
    while (came := await asyncio.to_thread(next, following, None)) is not None:
        yield came


def _routed(model: str) -> tuple[tuple[str, str], ...]:
    # Gateways route by headers: they cannot read bodies.
    return ((_MODEL_HEADER, model),)
