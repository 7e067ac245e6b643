"""The client's calls that manage models."""

from __future__ import annotations

import asyncio
import hashlib
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from facetmesh.client import calls
from facetmesh.detection.v1 import model_pb2
from facetmesh.kit.errors import Aborted, FacetmeshError, NotFound, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

_CHUNK_BYTES = 1 << 20
_ATTEMPTS = 5
"""So often an upload is tried that gets no further."""
_REST_S = 1.0


class Modelling(ABC):
    """What AsyncClient can do with models."""

    _models: Any  # model_pb2_grpc.ModelServiceStub, whose stubs differ for grpc.aio

    async def create_model(self, model_id: str, *, catalog_id: str, accept_licence: str = "") -> model_pb2.Model:
        """Gives the key's tenant a model of the catalogue.

        Args:
            model_id: What the tenant will call it.
            catalog_id: The catalogue's entry.
            accept_licence: The licence that is accepted by this call, by its SPDX id, where one must be.
        """
        model = model_pb2.Model(catalog_id=catalog_id, licence=accept_licence)
        request = model_pb2.CreateModelRequest(parent=await self._parent(None), model_id=model_id, model=model)
        return await calls.result(self._models.CreateModel(request))

    async def get_model(self, model: str) -> model_pb2.Model:
        """Returns a model."""
        request = model_pb2.GetModelRequest(name=await self._name("models", model))
        return await calls.result(self._models.GetModel(request))

    async def list_models(self, *, limit: int | None = None) -> list[model_pb2.Model]:
        """The models of the key's tenant, in the order of their ids."""
        request = model_pb2.ListModelsRequest(parent=await self._parent(None))
        return await calls.pages(self._models.ListModels, request, "models", limit)

    async def upload_model(
        self,
        model: str,
        file: bytes,
        *,
        licence: str,
        checkpoint: bool = False,
        labels: Sequence[str] = (),
        task: str = "",
        signature: bytes = b"",
        progress: Callable[[int], None] = lambda _: None,
    ) -> model_pb2.ModelVersion:
        r"""Makes a version out of a model's file; the model too, if there is none.

        A transfer that is cut off goes on where it ended, by itself and when this
        is called again with the same file.

        Args:
            model: The model's name or id.
            file: An ONNX file, or a checkpoint of ultralytics'.
            licence: The licence that it is under, as an SPDX expression.
            checkpoint: Whether it is a checkpoint (.pt), which is converted.
            labels: The names of its classes, where the file does not say them.
            task: detect, segment, pose, obb or classify, where the file does not say it.
            signature: Ed25519 over "facetmesh-model-v1\n" and the file's SHA-256, where the tenant's policy asks.
            progress: Is told how many bytes have been sent.
        """
        spec = model_pb2.UploadSpec(
            model=await self._name("models", model), sha256=hashlib.sha256(file).hexdigest(), size_bytes=len(file),
            format=model_pb2.UploadSpec.FORMAT_PT if checkpoint else model_pb2.UploadSpec.FORMAT_ONNX,
            licence=licence, labels=labels, signature=signature,
            task=calls.enum_value(model_pb2.Task, "TASK", task) if task else model_pb2.TASK_UNSPECIFIED,
        )
        spec.offset = await self._received(spec)
        attempt = 1
        while True:
            try:
                return await calls.result(self._models.UploadModel(_parts(spec, file, progress)))
            except FacetmeshError as error:
                if attempt == _ATTEMPTS or not _goes_on(error):
                    raise
            await asyncio.sleep(_REST_S * attempt)
            received = await self._received(spec)
            attempt = 1 if received > spec.offset else attempt + 1
            spec.offset = received

    async def quantize_version(
        self, model: str, version: str, images: Sequence[bytes], *, min_agreement: float | None = None
    ) -> model_pb2.ModelVersion:
        """Makes a version of 8 bits of a version; refused where it does not see what that sees.

        Args:
            model: The model's name or id.
            version: The original's number.
            images: At least 20 different JPEG, PNG or WebP files such as the model will see, at most 40 MB together.
            min_agreement: The least F1 score of its objects against the original's; 0.9 when None.
        """
        request = model_pb2.QuantizeModelVersionRequest(
            name=f"{await self._name('models', model)}/versions/{version}", images=images, min_agreement=min_agreement
        )
        return await calls.result(self._models.QuantizeModelVersion(request))

    async def list_versions(self, model: str, *, limit: int | None = None) -> list[model_pb2.ModelVersion]:
        """A model's versions, the newest first."""
        request = model_pb2.ListModelVersionsRequest(parent=await self._name("models", model))
        return await calls.pages(self._models.ListModelVersions, request, "model_versions", limit)

    async def get_version(self, model: str, version: str) -> model_pb2.ModelVersion:
        """Returns a version of a model, by its number."""
        name = f"{await self._name('models', model)}/versions/{version}"
        return await calls.result(self._models.GetModelVersion(model_pb2.GetModelVersionRequest(name=name)))

    async def delete_version(self, model: str, version: str) -> None:
        """Deletes a version of a model, by its number."""
        name = f"{await self._name('models', model)}/versions/{version}"
        await calls.result(self._models.DeleteModelVersion(model_pb2.DeleteModelVersionRequest(name=name)))

    async def delete_model(self, model: str) -> None:
        """Deletes a model with all its versions."""
        request = model_pb2.DeleteModelRequest(name=await self._name("models", model))
        await calls.result(self._models.DeleteModel(request))

    async def set_aliases(self, model: str, aliases: Mapping[str, str | None]) -> model_pb2.Model:
        """Moves aliases of a model to versions, by their numbers; removes those that are None.

        Raises:
            Aborted: Somebody else changed the model meanwhile.
        """
        wanted = await self.get_model(model)
        for alias, version in aliases.items():
            if version is None:
                wanted.aliases.pop(alias, None)
            else:
                wanted.aliases[alias] = version
        return await self._update(wanted, "aliases")

    async def set_traffic(self, model: str, traffic: model_pb2.Traffic) -> model_pb2.Model:
        """Changes how a model's calls are split between its versions; an empty one sends all to "stable".

        Raises:
            Aborted: Somebody else changed the model meanwhile.
        """
        wanted = await self.get_model(model)
        wanted.traffic.CopyFrom(traffic)
        return await self._update(wanted, "traffic")

    async def _update(self, model: model_pb2.Model, field: str) -> model_pb2.Model:
        request = model_pb2.UpdateModelRequest(model=model)
        request.update_mask.paths.append(field)
        return await calls.result(self._models.UpdateModel(request))

    async def _received(self, spec: model_pb2.UploadSpec) -> int:
        """How much of a file is there already."""
        tenant = spec.model.partition("/models/")[0]
        request = model_pb2.GetUploadRequest(name=f"{tenant}/uploads/{spec.sha256}")
        try:
            upload = await calls.result(self._models.GetUpload(request))
        except NotFound:
            return 0
        return upload.received_bytes if upload.size_bytes == spec.size_bytes else 0

    @abstractmethod
    async def _parent(self, tenant: str | None) -> str:
        """The tenant's resource name; the key's own tenant when None."""

    @abstractmethod
    async def _name(self, collection: str, name: str) -> str:
        """A whole resource name."""


def _goes_on(error: FacetmeshError) -> bool:
    """Whether an upload goes on after it: the transfer was cut off, or the same file comes for another model too."""
    return isinstance(error, Unavailable | Aborted) or error.reason == "OFFSET_MISMATCH"


def _parts(
    spec: model_pb2.UploadSpec, file: bytes, progress: Callable[[int], None]
) -> Iterator[model_pb2.UploadModelRequest]:
    """What is uploaded, and the file from its offset on."""
    yield model_pb2.UploadModelRequest(spec=spec)
    for start in range(spec.offset, len(file), _CHUNK_BYTES):
        progress(start)
        yield model_pb2.UploadModelRequest(chunk=file[start : start + _CHUNK_BYTES])
    progress(len(file))
