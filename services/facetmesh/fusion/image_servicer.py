"""fusion's gRPC face for uploaded images: protobuf in, domain call, protobuf out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf import empty_pb2

from facetmesh.fusion.v1 import image_pb2, image_pb2_grpc
from facetmesh.kit import audit
from facetmesh.kit.errors import InvalidArgument, NotFound
from facetmesh.kit.index import page

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from facetmesh.fusion.uploads import Upload, Uploads


class ImageServicer(image_pb2_grpc.ImageServiceServicer):
    """Serves facetmesh.fusion.v1.ImageService.

    Args:
        uploads: The uploads of all tenants.
    """

    def __init__(self, uploads: Uploads) -> None:
        self._uploads = uploads

    async def UploadImage(self, requests: AsyncIterator[image_pb2.UploadImageRequest], _: Any) -> image_pb2.Image:
        """Keeps an image."""
        tenant_id, sha256 = _split((await anext(requests)).name)
        audit.current().describe(resource=f"tenants/{tenant_id}/images/{sha256}", inputs=[bytes.fromhex(sha256)])
        return _message(await self._uploads.receive(tenant_id, sha256, _chunks(requests)))

    async def GetImage(self, request: image_pb2.GetImageRequest, _: Any) -> image_pb2.Image:
        """Returns what is known of an image."""
        return _message(await self._uploads.get(*_split(request.name)))

    async def ListImages(self, request: image_pb2.ListImagesRequest, _: Any) -> image_pb2.ListImagesResponse:
        """Lists a tenant's images."""
        tenant_id = request.parent.rpartition("/")[2]
        ids, token = page(await self._uploads.ids(tenant_id), request.page_size, request.page_token)
        response = image_pb2.ListImagesResponse(next_page_token=token)
        for sha256 in ids:
            try:
                response.images.append(_message(await self._uploads.get(tenant_id, sha256)))
            except NotFound:
                continue  # the index is a hint
        return response

    async def DeleteImage(self, request: image_pb2.DeleteImageRequest, _: Any) -> empty_pb2.Empty:
        """Deletes an image."""
        await self._uploads.delete(*_split(request.name))
        return empty_pb2.Empty()


async def _chunks(requests: AsyncIterator[image_pb2.UploadImageRequest]) -> AsyncIterator[bytes]:
    async for request in requests:
        if request.WhichOneof("part") != "chunk":
            raise InvalidArgument("Only the first message of an upload is its name.", reason="NAME_REPEATED")
        yield request.chunk


def _message(upload: Upload) -> image_pb2.Image:
    message = image_pb2.Image(name=upload.name, size_bytes=upload.size_bytes)
    message.create_time.FromMicroseconds(int(upload.created_s * 1e6))
    message.expire_time.FromMicroseconds(int(upload.expires_s * 1e6))
    return message


def _split(name: str) -> tuple[str, str]:
    _, tenant_id, _, sha256 = name.split("/")
    return tenant_id, sha256
