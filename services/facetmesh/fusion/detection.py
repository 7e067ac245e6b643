"""The detection service, as fusion asks it for faces, and for what is not to be fused."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import grpc

from facetmesh.detection.v1 import detection_pb2, detection_pb2_grpc, model_pb2, model_pb2_grpc
from facetmesh.fusion.charging import charged
from facetmesh.fusion.faces import LABEL_PREFIX, Face, Found, Seen, distinct
from facetmesh.fusion.moderation import CATALOG_IDS, Moderator
from facetmesh.kit import identity, status, telemetry
from facetmesh.kit.errors import Unauthenticated
from facetmesh.kit.tls import channel

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from google.protobuf.message import Message

    from facetmesh.fusion.faces import Point
    from facetmesh.kit.tls import TlsFiles

_TIMEOUT_S = 30.0
_MAX_FOUND = 100
_MODELS = 1000
_KNOWN_S = 30.0
_OPTIONS = (
    # gRPC's own would let jobs fail for up to two minutes after detection is back.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 1000),
)


class DetectionFaces:
    """Finds faces by calling detection.

    Args:
        address: host:port.
        files: How it is encrypted.
        token: Gives a token with which fusion acts on behalf of tenants/{tenant}.
        forget: Is told whose token was refused: the next is to be a new one.
    """

    def __init__(
        self, address: str, files: TlsFiles, token: Callable[[str], Awaitable[str]], forget: Callable[[str], None]
    ) -> None:
        self._channel = channel(address, files, _OPTIONS, telemetry.client_interceptors())
        self._stub = detection_pb2_grpc.DetectionServiceStub(self._channel)
        self._models = model_pb2_grpc.ModelServiceStub(self._channel)
        self._moderators: dict[str, tuple[Moderator, float]] = {}
        self._clock = time.monotonic
        self._token = token
        self._forget = forget

    async def find(self, tenant_id: str, model: str, image: bytes, *, version: str = "") -> Found:
        """Finds the faces of an image, and what else there is, on behalf of a tenant, with a model of the tenant's."""
        request = detection_pb2.DetectRequest(
            model=model, image=image, max_detections=_MAX_FOUND, version=version.rpartition("/")[2]
        )
        response = await self._call(f"tenants/{tenant_id}", self._stub.Detect, request, model)
        faces = distinct(
            [_face(found) for found in response.detections if found.label.lower().startswith(LABEL_PREFIX)]
        )
        seen = [Seen(one.label, one.confidence) for one in response.detections]
        return Found(faces, response.model_version, seen)

    async def moderator(self, tenant_id: str) -> Moderator | None:
        """The tenant's first model whose stable version is of the catalogue, and moderates; None when there is none."""
        now = self._clock()
        if (known := self._moderators.get(tenant_id)) is not None and now < known[1]:
            return known[0]
        request = model_pb2.ListModelsRequest(parent=f"tenants/{tenant_id}", page_size=_MODELS)
        response = await self._call(request.parent, self._models.ListModels, request)
        models = (Moderator(one.name, one.version) for one in response.models if one.catalog_id in CATALOG_IDS)
        found = next(models, None)
        if found is not None:
            self._moderators[tenant_id] = (found, now + _KNOWN_S)
        return found

    async def _call(self, tenant: str, method: Any, request: Message, model: str = "") -> Any:
        try:
            return await self._try(tenant, method, request, model)
        except Unauthenticated:
            # By detection's clock the token has expired, which by ours may take minutes more.
            self._forget(tenant)
            return await self._try(tenant, method, request, model)

    async def _try(self, tenant: str, method: Any, request: Message, model: str) -> Any:
        token = await self._token(tenant)
        metadata = [("authorization", f"Bearer {token}"), (identity.FOR_HEADER, charged())]
        if model:
            metadata.append(("x-facetmesh-model", model))
        try:
            return await method(request, metadata=metadata, timeout=_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise status.from_rpc_error(error) from error

    async def close(self) -> None:
        """Closes the connection."""
        await self._channel.close()


def _face(found: detection_pb2.Detection) -> Face:
    points: dict[str, Point] = {point.label: (point.x, point.y) for point in found.keypoints}
    box = found.box
    return Face(
        (box.x_min, box.y_min, box.x_max, box.y_max), points.get("right_eye"), points.get("left_eye"), found.label
    )
