"""The client's calls about images that are sent once and fused as often as is wanted."""

from __future__ import annotations

import asyncio
import hashlib
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from facetmesh.client import calls
from facetmesh.fusion.v1 import image_pb2
from facetmesh.kit.errors import Aborted, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

_CHUNK_BYTES = 1 << 20
_ATTEMPTS = 5
_REST_S = 1.0


class Uploading(ABC):
    """What AsyncClient can do with images."""

    _images: Any  # image_pb2_grpc.ImageServiceStub, whose stubs differ for grpc.aio

    async def upload_image(self, file: bytes) -> image_pb2.Image:
        """Keeps an image for a day, for fusions to name; what is there already is not sent again.

        Args:
            file: A JPEG, PNG or WebP file, 20 MB at most.
        """
        name = await self._name("images", hashlib.sha256(file).hexdigest())
        for attempt in range(1, _ATTEMPTS):
            try:
                return await calls.result(self._images.UploadImage(_parts(name, file)))
            except (Unavailable, Aborted):
                await asyncio.sleep(_REST_S * attempt)
        return await calls.result(self._images.UploadImage(_parts(name, file)))

    async def get_image(self, image: str) -> image_pb2.Image:
        """What is known of an image, by name or SHA-256."""
        request = image_pb2.GetImageRequest(name=await self._name("images", image))
        return await calls.result(self._images.GetImage(request))

    async def list_images(self, *, limit: int | None = None) -> list[image_pb2.Image]:
        """The tenant's images."""
        request = image_pb2.ListImagesRequest(parent=await self._parent(None))
        return await calls.pages(self._images.ListImages, request, "images", limit)

    async def delete_image(self, image: str) -> None:
        """Deletes an image, by name or SHA-256."""
        request = image_pb2.DeleteImageRequest(name=await self._name("images", image))
        await calls.result(self._images.DeleteImage(request))

    @abstractmethod
    async def _parent(self, tenant: str | None) -> str: ...

    @abstractmethod
    async def _name(self, collection: str, name: str) -> str: ...


def _parts(name: str, file: bytes) -> Iterator[image_pb2.UploadImageRequest]:
    yield image_pb2.UploadImageRequest(name=name)
    for start in range(0, len(file), _CHUNK_BYTES):
        yield image_pb2.UploadImageRequest(chunk=file[start : start + _CHUNK_BYTES])
