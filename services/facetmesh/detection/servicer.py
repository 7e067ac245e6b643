"""detection's gRPC face: protobuf in, domain call, protobuf out."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from facetmesh.detection.detector import Options
from facetmesh.detection.v1 import detection_pb2, detection_pb2_grpc
from facetmesh.kit import audit
from facetmesh.kit.errors import NotFound
from facetmesh.kit.index import page

if TYPE_CHECKING:
    from facetmesh.detection.detector import Detection, Detector
    from facetmesh.detection.models import Model, Models

_DEFAULTS = Options()


class DetectionServicer(detection_pb2_grpc.DetectionServiceServicer):
    """Serves facetmesh.detection.v1.DetectionService.

    Args:
        models: The tenants' models.
        detector: Finds objects with them.
    """

    def __init__(self, models: Models, detector: Detector) -> None:
        self._models = models
        self._detector = detector

    async def Detect(self, request: detection_pb2.DetectRequest, _: Any) -> detection_pb2.DetectResponse:
        """Finds objects in an image."""
        record = audit.current()
        record.describe(inputs=[hashlib.sha256(request.image).digest()])
        model = await self._models.get(*_ids(request.model))
        record.describe(model_version=model.version, model_sha256=model.sha256)
        result = await self._detector.detect(model, request.image, _options(request))
        response = detection_pb2.DetectResponse(
            detections=[_detection(found) for found in result.detections],
            image_width=result.width,
            image_height=result.height,
            model_version=model.version,
        )
        # The receipt's name is not part of what it vouches for.
        record.describe(output=hashlib.sha256(response.SerializeToString(deterministic=True)).digest())
        response.receipt = record.receipt
        return response

    async def CreateModel(self, request: detection_pb2.CreateModelRequest, _: Any) -> detection_pb2.Model:
        """Gives a tenant a model from the catalogue."""
        model = await self._models.create(
            request.parent.rpartition("/")[2], request.model_id, request.model.catalog_id, request.model.licence
        )
        audit.current().describe(resource=model.name, model_version=model.version, model_sha256=model.sha256)
        return _model(model)

    async def GetModel(self, request: detection_pb2.GetModelRequest, _: Any) -> detection_pb2.Model:
        """Returns a model."""
        return _model(await self._models.get(*_ids(request.name)))

    async def ListModels(
        self, request: detection_pb2.ListModelsRequest, _: Any
    ) -> detection_pb2.ListModelsResponse:
        """Lists a tenant's models."""
        tenant_id = request.parent.rpartition("/")[2]
        ids, token = page(await self._models.ids(tenant_id), request.page_size, request.page_token)
        response = detection_pb2.ListModelsResponse(next_page_token=token)
        for model_id in ids:
            try:
                response.models.append(_model(await self._models.get(tenant_id, model_id)))
            except NotFound:
                continue  # the index is a hint
        return response


def _ids(name: str) -> tuple[str, str]:
    _, tenant_id, _, model_id = name.split("/")
    return tenant_id, model_id


def _options(request: detection_pb2.DetectRequest) -> Options:
    return Options(
        request.min_confidence if request.HasField("min_confidence") else _DEFAULTS.min_confidence,
        request.iou_threshold if request.HasField("iou_threshold") else _DEFAULTS.iou_threshold,
        tuple(request.labels),
        request.max_detections or _DEFAULTS.max_detections,
    )


def _detection(found: Detection) -> detection_pb2.Detection:
    x_min, y_min, x_max, y_max = found.box
    return detection_pb2.Detection(
        box=detection_pb2.BoundingBox(x_min=x_min, y_min=y_min, x_max=x_max, y_max=y_max),
        label=found.label,
        class_id=found.class_id,
        confidence=found.confidence,
        keypoints=[detection_pb2.Keypoint(label=point.label, x=point.x, y=point.y) for point in found.keypoints],
    )


def _model(model: Model) -> detection_pb2.Model:
    message = detection_pb2.Model(
        name=model.name,
        catalog_id=model.catalog_id,
        licence=model.licence,
        version=model.version,
        sha256=model.sha256,
        labels=model.labels,
        etag=model.etag,
    )
    message.create_time.FromMicroseconds(int(model.created_s * 1e6))
    return message
