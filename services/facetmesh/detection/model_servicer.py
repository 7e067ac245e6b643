"""The gRPC face of models: protobuf in, domain call, protobuf out."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from google.protobuf import empty_pb2

from facetmesh.detection import messages
from facetmesh.detection.models import STABLE
from facetmesh.detection.quantization import MIN_AGREEMENT
from facetmesh.detection.signatures import Policy
from facetmesh.detection.v1 import model_pb2, model_pb2_grpc
from facetmesh.kit import audit
from facetmesh.kit.errors import Aborted, InvalidArgument, NotFound
from facetmesh.kit.fieldmasks import merged
from facetmesh.kit.index import page

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from facetmesh.detection.intake import Intake
    from facetmesh.detection.models import Model, Models
    from facetmesh.detection.quantization import Quantizer
    from facetmesh.detection.store import DaprStore
    from facetmesh.detection.uploads import Uploads
    from facetmesh.detection.versions import Version


class ModelServicer(model_pb2_grpc.ModelServiceServicer):
    """Serves facetmesh.detection.v1.ModelService.

    Args:
        models: The tenants' models.
        intake: How they come in, and go.
        quantizer: Makes versions of 8 bits.
        uploads: Files on their way.
        policies: What tenants ask of uploads.
    """

    def __init__(
        self, models: Models, intake: Intake, quantizer: Quantizer, uploads: Uploads, policies: DaprStore
    ) -> None:
        self._models = models
        self._intake = intake
        self._quantizer = quantizer
        self._uploads = uploads
        self._policies = policies

    async def CreateModel(self, request: model_pb2.CreateModelRequest, _: Any) -> model_pb2.Model:
        """Gives a tenant a model from the catalogue."""
        tenant_id = _last(request.parent)
        version = await self._intake.create(
            tenant_id, request.model_id, request.model.catalog_id, request.model.licence
        )
        _record(version, version.model)
        return await self._message(await self._models.get(tenant_id, request.model_id))

    async def GetModel(self, request: model_pb2.GetModelRequest, _: Any) -> model_pb2.Model:
        """Returns a model."""
        return await self._message(await self._models.get(*ids(request.name)))

    async def ListModels(self, request: model_pb2.ListModelsRequest, _: Any) -> model_pb2.ListModelsResponse:
        """Lists a tenant's models."""
        tenant_id = _last(request.parent)
        chosen, token = page(await self._models.ids(tenant_id), request.page_size, request.page_token)
        response = model_pb2.ListModelsResponse(next_page_token=token)
        for model_id in chosen:
            try:
                response.models.append(await self._message(await self._models.get(tenant_id, model_id)))
            except NotFound:
                continue  # the index is a hint
        return response

    async def UpdateModel(self, request: model_pb2.UpdateModelRequest, _: Any) -> model_pb2.Model:
        """Moves aliases, or changes the split of calls."""
        current = await self._models.get(*ids(request.model.name))
        _check_etag(request.model.etag, current.etag)
        wanted = merged(
            await self._message(current), request.model, request.update_mask, ("aliases", "traffic")
        )
        aliases = {alias: int(number) for alias, number in wanted.aliases.items()}
        changed = replace(current, aliases=aliases, traffic=messages.traffic(wanted.traffic))
        return await self._message(await self._models.update(changed))

    async def DeleteModel(self, request: model_pb2.DeleteModelRequest, _: Any) -> empty_pb2.Empty:
        """Deletes a model."""
        current = await self._models.get(*ids(request.name))
        _check_etag(request.etag, current.etag)
        await self._intake.delete(current)
        return empty_pb2.Empty()

    async def UploadModel(
        self, requests: AsyncIterator[model_pb2.UploadModelRequest], _: Any
    ) -> model_pb2.ModelVersion:
        """Makes a version out of a file."""
        first = await anext(requests)
        tenant_id, model_id = ids(first.spec.model)
        spec = messages.spec(first.spec)
        audit.current().describe(inputs=[bytes.fromhex(spec.sha256)])
        version = await self._intake.upload(tenant_id, model_id, spec, _chunks(requests))
        _record(version, version.name)
        return messages.version(version)

    async def GetUpload(self, request: model_pb2.GetUploadRequest, _: Any) -> model_pb2.Upload:
        """Returns how far an upload got."""
        tenant_id, sha256 = ids(request.name)
        return messages.upload(await self._uploads.get(tenant_id, sha256))

    async def GetModelVersion(self, request: model_pb2.GetModelVersionRequest, _: Any) -> model_pb2.ModelVersion:
        """Returns a version."""
        return messages.version(await self._version(request.name))

    async def ListModelVersions(
        self, request: model_pb2.ListModelVersionsRequest, _: Any
    ) -> model_pb2.ListModelVersionsResponse:
        """Lists a model's versions."""
        model = await self._models.get(*ids(request.parent))
        newest_first = [str(number) for number in reversed(model.versions)]
        chosen, token = page(newest_first, request.page_size, request.page_token)
        found = await self._models.versions(model, [int(number) for number in chosen])
        return model_pb2.ListModelVersionsResponse(
            model_versions=[messages.version(version) for version in found], next_page_token=token
        )

    async def DeleteModelVersion(self, request: model_pb2.DeleteModelVersionRequest, _: Any) -> empty_pb2.Empty:
        """Deletes a version."""
        await self._intake.delete_version(await self._version(request.name))
        return empty_pb2.Empty()

    async def QuantizeModelVersion(
        self, request: model_pb2.QuantizeModelVersionRequest, _: Any
    ) -> model_pb2.ModelVersion:
        """Makes a version of 8 bits."""
        bar = request.min_agreement if request.HasField("min_agreement") else MIN_AGREEMENT
        version = await self._quantizer.quantize(await self._version(request.name), request.images, bar)
        if (made := version.quantization) is not None:
            audit.current().describe(inputs=[bytes.fromhex(made.images_sha256)])
        _record(version, version.name)
        return messages.version(version)

    async def GetModelPolicy(self, request: model_pb2.GetModelPolicyRequest, _: Any) -> model_pb2.ModelPolicy:
        """Returns what a tenant asks of uploads."""
        tenant_id = request.name.split("/")[1]
        return messages.policy(tenant_id, await self._policies.policy(tenant_id))

    async def UpdateModelPolicy(
        self, request: model_pb2.UpdateModelPolicyRequest, _: Any
    ) -> model_pb2.ModelPolicy:
        """Changes what a tenant asks of uploads."""
        tenant_id = request.model_policy.name.split("/")[1]
        current = await self._policies.policy(tenant_id)
        _check_etag(request.model_policy.etag, current.etag)
        wanted = merged(
            messages.policy(tenant_id, current), request.model_policy, request.update_mask,
            ("signing_keys", "signature_required"),
        )  # fmt: skip
        keys = {key.id: base64.b64encode(key.public_key).decode() for key in wanted.signing_keys}
        if len(keys) != len(wanted.signing_keys):
            raise InvalidArgument("signing_keys: two have the same id.", reason="FIELD_INVALID")
        await self._policies.put_policy(tenant_id, Policy(keys, wanted.signature_required, current.etag))
        return messages.policy(tenant_id, await self._policies.policy(tenant_id))

    async def _message(self, model: Model) -> model_pb2.Model:
        stable = await self._models.version(model.tenant_id, model.id, model.aliases[STABLE])
        return messages.model(model, stable)

    async def _version(self, name: str) -> Version:
        parent, _, number = name.rpartition("/versions/")
        model = await self._models.get(*ids(parent))
        return await self._models.version(model.tenant_id, model.id, model.number(number))


def ids(name: str) -> tuple[str, str]:
    """The tenant's id, and the other, of tenants/{tenant}/…/{other}."""
    _, tenant_id, _, other = name.split("/")
    return tenant_id, other


async def _chunks(requests: AsyncIterator[model_pb2.UploadModelRequest]) -> AsyncIterator[bytes]:
    async for request in requests:
        if not request.chunk:
            raise InvalidArgument("Only the first message says what is uploaded.", reason="SPEC_REPEATED")
        yield request.chunk


def _check_etag(given: str, current: str) -> None:
    if given and given != current:
        raise Aborted("It has changed since it was read: read it again.", reason="ETAG_MISMATCH")


def _record(version: Version, resource: str) -> None:
    audit.current().describe(resource=resource, model_version=version.name, model_sha256=version.sha256)


def _last(name: str) -> str:
    return name.rpartition("/")[2]
