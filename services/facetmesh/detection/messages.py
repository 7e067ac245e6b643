"""What detection says in protobuf."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from facetmesh.detection.detector import Image, Options
from facetmesh.detection.hints import Hints
from facetmesh.detection.intake import Spec
from facetmesh.detection.splits import Traffic
from facetmesh.detection.v1 import detection_pb2, model_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping

    from facetmesh.detection.detector import Detection, Result
    from facetmesh.detection.models import Model
    from facetmesh.detection.signatures import Policy
    from facetmesh.detection.splits import Stickiness
    from facetmesh.detection.uploads import Upload
    from facetmesh.detection.versions import ClassAgreement, Version

_DEFAULTS = Options()
_TASKS: Mapping[str, model_pb2.Task.ValueType] = {
    "detect": model_pb2.TASK_DETECT, "segment": model_pb2.TASK_SEGMENT, "pose": model_pb2.TASK_POSE,
    "obb": model_pb2.TASK_OBB, "classify": model_pb2.TASK_CLASSIFY,
}  # fmt: skip
_STICKINESS: Mapping[Stickiness, model_pb2.Traffic.Stickiness.ValueType] = {
    "caller": model_pb2.Traffic.STICKINESS_CALLER, "input": model_pb2.Traffic.STICKINESS_INPUT,
    "none": model_pb2.Traffic.STICKINESS_NONE,
}  # fmt: skip


def options(asked: detection_pb2.DetectRequest | detection_pb2.DetectOptions) -> Options:
    """What is looked for."""
    return Options(
        asked.min_confidence if asked.HasField("min_confidence") else _DEFAULTS.min_confidence,
        asked.iou_threshold if asked.HasField("iou_threshold") else _DEFAULTS.iou_threshold,
        tuple(asked.labels),
        asked.max_detections or _DEFAULTS.max_detections,
        asked.class_agnostic,
    )


def image(asked: detection_pb2.DetectRequest | detection_pb2.Frame) -> Image:
    """What is looked at, where the request brings it."""
    if asked.HasField("pixels"):
        return Image(asked.pixels.rgb, asked.pixels.height, asked.pixels.width)
    return Image(asked.image)


def response(result: Result, version: Version) -> detection_pb2.DetectResponse:
    """The answer, without its receipt."""
    return detection_pb2.DetectResponse(
        detections=[_detection(found, result) for found in result.detections],
        image_width=result.width,
        image_height=result.height,
        model_version=version.name,
        classifications=[
            detection_pb2.Classification(label=one.label, class_id=one.class_id, confidence=one.confidence)
            for one in result.classifications
        ],
    )


def model(found: Model, stable: Version) -> model_pb2.Model:
    """A model with its stable version."""
    message = model_pb2.Model(
        name=found.name,
        catalog_id=stable.catalog_id,
        licence=stable.licence,
        version=stable.name,
        sha256=stable.sha256,
        labels=stable.labels,
        etag=found.etag,
        aliases={alias: str(number) for alias, number in found.aliases.items()},
    )
    message.create_time.FromMicroseconds(int(found.created_s * 1e6))
    split = found.traffic
    if split != Traffic():
        message.traffic.CopyFrom(
            model_pb2.Traffic(
                targets=[model_pb2.Traffic.Target(version=name, percent=percent) for name, percent in split.targets],
                stickiness=_STICKINESS[split.stickiness],
                shadow_version=split.shadow,
                shadow_percent=split.shadow_percent,
            )
        )
    return message


def traffic(asked: model_pb2.Traffic) -> Traffic:
    """How calls are split."""
    sticky = {number: name for name, number in _STICKINESS.items()}
    return Traffic(
        tuple((target.version, target.percent) for target in asked.targets),
        sticky.get(asked.stickiness, "caller"),
        asked.shadow_version,
        asked.shadow_percent,
    )


def version(found: Version) -> model_pb2.ModelVersion:
    """A version."""
    message = model_pb2.ModelVersion(
        name=found.name,
        sha256=found.sha256,
        size_bytes=found.size_bytes,
        catalog_id=found.catalog_id,
        licence=found.licence,
        task=_TASKS[found.facts.task],
        labels=found.labels,
        input_height=found.facts.height,
        input_width=found.facts.width,
        source_sha256=found.source_sha256,
        signing_key_id=found.signing_key_id,
    )
    message.create_time.FromMicroseconds(int(found.created_s * 1e6))
    if (made := found.quantization) is not None:
        message.quantization.CopyFrom(
            model_pb2.Quantization(
                source_version=f"{found.model}/versions/{made.source}",
                calibration_image_count=made.calibrated,
                measured_image_count=made.measured,
                images_sha256=made.images_sha256,
                total=_agreement(made.total, ""),
                classes=[_agreement(one, one.label) for one in made.classes],
            )
        )
    return message


def _agreement(found: ClassAgreement, label: str) -> model_pb2.Quantization.Agreement:
    return model_pb2.Quantization.Agreement(
        label=label, source_count=found.reference, count=found.found, matched_count=found.matched, f1=found.f1
    )


def spec(asked: model_pb2.UploadSpec) -> Spec:
    """What is uploaded."""
    task = next((name for name, number in _TASKS.items() if number == asked.task), "")
    return Spec(
        asked.sha256,
        asked.size_bytes,
        asked.licence,
        asked.offset,
        asked.format == model_pb2.UploadSpec.FORMAT_PT,
        Hints(tuple(asked.labels), task, asked.input_height, asked.input_width),
        asked.signature,
    )


def upload(found: Upload) -> model_pb2.Upload:
    """How far an upload got."""
    message = model_pb2.Upload(name=found.name, size_bytes=found.size_bytes, received_bytes=found.received_bytes)
    message.expire_time.FromMicroseconds(int(found.expires_s * 1e6))
    return message


def policy(tenant_id: str, found: Policy) -> model_pb2.ModelPolicy:
    """What a tenant asks of uploads."""
    return model_pb2.ModelPolicy(
        name=f"tenants/{tenant_id}/modelPolicy",
        signing_keys=[
            model_pb2.ModelPolicy.SigningKey(id=key_id, public_key=base64.b64decode(key))
            for key_id, key in found.keys.items()
        ],
        signature_required=found.required,
        etag=found.etag,
    )


def _detection(found: Detection, result: Result) -> detection_pb2.Detection:
    x_min, y_min, x_max, y_max = found.box
    message = detection_pb2.Detection(
        box=detection_pb2.BoundingBox(x_min=x_min, y_min=y_min, x_max=x_max, y_max=y_max),
        label=found.label,
        class_id=found.class_id,
        confidence=found.confidence,
        keypoints=[
            detection_pb2.Keypoint(label=point.label, x=point.x, y=point.y, confidence=point.confidence)
            for point in found.keypoints
        ],
    )
    if found.mask:
        message.mask.CopyFrom(detection_pb2.Mask(height=result.height, width=result.width, counts=found.mask))
    if (box := found.rotated_box) is not None:
        message.rotated_box.CopyFrom(
            detection_pb2.RotatedBox(
                center_x=box.center_x, center_y=box.center_y, width=box.width, height=box.height,
                angle_rad=box.angle_rad,
            )
        )
    return message
