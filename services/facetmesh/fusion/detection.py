"""The detection service, as fusion asks it for faces."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc

from facetmesh.detection.v1 import detection_pb2, detection_pb2_grpc
from facetmesh.fusion.charging import charged
from facetmesh.fusion.faces import LABEL_PREFIX, Face, Found
from facetmesh.kit import identity, status, telemetry
from facetmesh.kit.errors import Unauthenticated
from facetmesh.kit.tls import channel

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from facetmesh.fusion.faces import Point
    from facetmesh.kit.tls import TlsFiles

_TIMEOUT_S = 30.0
_MAX_FACES = 100
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
        self._token = token
        self._forget = forget

    async def find(self, tenant_id: str, model: str, image: bytes) -> Found:
        """Finds the faces of an image on behalf of a tenant, with a model of the tenant's."""
        request = detection_pb2.DetectRequest(model=model, image=image, max_detections=_MAX_FACES)
        try:
            response = await self._detect(f"tenants/{tenant_id}", request)
        except Unauthenticated:
            # By detection's clock the token has expired, which by ours may take minutes more.
            self._forget(f"tenants/{tenant_id}")
            response = await self._detect(f"tenants/{tenant_id}", request)
        faces = [_face(found) for found in response.detections if found.label.lower().startswith(LABEL_PREFIX)]
        return Found(faces, response.model_version)

    async def _detect(self, tenant: str, request: detection_pb2.DetectRequest) -> detection_pb2.DetectResponse:
        token = await self._token(tenant)
        metadata = (("authorization", f"Bearer {token}"), ("x-facetmesh-model", request.model),
                    (identity.FOR_HEADER, charged()))  # fmt: skip
        try:
            return await self._stub.Detect(request, metadata=metadata, timeout=_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise status.from_rpc_error(error) from error

    async def close(self) -> None:
        """Closes the connection."""
        await self._channel.close()


def _face(found: detection_pb2.Detection) -> Face:
    points: dict[str, Point] = {point.label: (point.x, point.y) for point in found.keypoints}
    box = found.box
    return Face(
        (box.x_min, box.y_min, box.x_max, box.y_max), points.get("right_eye"), points.get("left_eye")
    )
