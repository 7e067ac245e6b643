"""KServe's V2 protocol over the same models: protobuf in, domain call, protobuf out.

A model is named by its id within the token's tenant, or by its whole resource
name. Source: the Open Inference Protocol (https://github.com/kserve/open-inference-protocol),
and Triton's extensions of it (model repository, model configuration, statistics).
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any

from facetmesh import __version__
from facetmesh.detection import kserve_messages as messages
from facetmesh.detection import priorities
from facetmesh.inference import inference_pb2, inference_pb2_grpc
from facetmesh.kit import audit, status
from facetmesh.kit.errors import FacetmeshError, NotFound

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from facetmesh.detection.answers import Answers
    from facetmesh.detection.models import Model, Models
    from facetmesh.detection.statistics import Statistics
    from facetmesh.detection.versions import Version
    from facetmesh.kit.audit import Recorder

_STREAM = "inference.GRPCInferenceService/ModelStreamInfer"
_EXTENSIONS = ("model_repository", "model_configuration", "statistics", "binary_tensor_data")
_NAME = re.compile(r"(?:tenants/(?P<tenant>[a-z][a-z0-9-]{1,38}[a-z0-9])/models/)?(?P<model>[a-z][a-z0-9-]{0,62})")
"""How a model is named: by its id, or whole."""


class KServeServicer(inference_pb2_grpc.GRPCInferenceServiceServicer):
    """Serves inference.GRPCInferenceService.

    Args:
        models: The tenants' models.
        answers: Runs them.
        statistics: What became of each version's calls.
        recorder: Takes the audit events of a stream's requests.
    """

    def __init__(self, models: Models, answers: Answers, statistics: Statistics, recorder: Recorder) -> None:
        self._models = models
        self._answers = answers
        self._statistics = statistics
        self._recorder = recorder

    async def ServerLive(self, _: Any, __: Any) -> inference_pb2.ServerLiveResponse:
        """Whether the process runs."""
        return inference_pb2.ServerLiveResponse(live=True)

    async def ServerReady(self, _: Any, __: Any) -> inference_pb2.ServerReadyResponse:
        """Whether it takes calls: it has taken this one."""
        return inference_pb2.ServerReadyResponse(ready=True)

    async def ServerMetadata(self, _: Any, __: Any) -> inference_pb2.ServerMetadataResponse:
        """What serves."""
        return inference_pb2.ServerMetadataResponse(name="facetmesh", version=__version__, extensions=_EXTENSIONS)

    async def ModelReady(
        self, request: inference_pb2.ModelReadyRequest, _: Any
    ) -> inference_pb2.ModelReadyResponse:
        """Whether a model can be called."""
        try:
            await self._version(request.name, request.version)
        except NotFound:
            return inference_pb2.ModelReadyResponse(ready=False)
        return inference_pb2.ModelReadyResponse(ready=True)

    async def ModelMetadata(
        self, request: inference_pb2.ModelMetadataRequest, _: Any
    ) -> inference_pb2.ModelMetadataResponse:
        """A model's inputs and outputs."""
        version = await self._version(request.name, request.version)
        return messages.metadata(request.name, await self._model(request.name), version)

    async def ModelConfig(
        self, request: inference_pb2.ModelConfigRequest, _: Any
    ) -> inference_pb2.ModelConfigResponse:
        """A model's configuration."""
        return messages.config(request.name, await self._version(request.name, request.version))

    async def ModelInfer(
        self, request: inference_pb2.ModelInferRequest, _: Any
    ) -> inference_pb2.ModelInferResponse:
        """Runs a model."""
        return await self._infer(request, audit.current())

    async def ModelStreamInfer(
        self, requests: AsyncIterator[inference_pb2.ModelInferRequest], _: Any
    ) -> AsyncIterator[inference_pb2.ModelStreamInferResponse]:
        """Runs models, one request after the other. What is wrong with one does not end the stream."""
        call = audit.current()
        async for request in requests:
            answer = await self._streamed(request, call)
            del request  # or the memory has it beside the next one
            yield answer

    async def ModelStatistics(
        self, request: inference_pb2.ModelStatisticsRequest, _: Any
    ) -> inference_pb2.ModelStatisticsResponse:
        """What became of calls, of one version, of all of a model, or of all models."""
        if request.version:
            versions = [await self._version(request.name, request.version)]
        elif request.name:
            model = await self._model(request.name)
            versions = await self._models.versions(model, model.versions)
        else:
            versions = await self._all()
        return inference_pb2.ModelStatisticsResponse(
            model_stats=[messages.statistics(version, self._statistics.of(version.name)) for version in versions]
        )

    async def RepositoryIndex(self, _: Any, __: Any) -> inference_pb2.RepositoryIndexResponse:
        """The tenant's models."""
        index = inference_pb2.RepositoryIndexResponse
        return index(
            models=[
                index.ModelIndex(name=version.model_id, version=str(version.number), state="READY")
                for version in await self._all()
            ]
        )

    async def RepositoryModelLoad(
        self, request: inference_pb2.RepositoryModelLoadRequest, _: Any
    ) -> inference_pb2.RepositoryModelLoadResponse:
        """Loads the version that answers."""
        await self._answers.load(await self._version(request.model_name, ""))
        return inference_pb2.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(
        self, request: inference_pb2.RepositoryModelUnloadRequest, _: Any
    ) -> inference_pb2.RepositoryModelUnloadResponse:
        """Gives the memory of the version that answers back."""
        await self._answers.unload(await self._version(request.model_name, ""))
        return inference_pb2.RepositoryModelUnloadResponse()

    async def _streamed(
        self, request: inference_pb2.ModelInferRequest, call: audit.Record
    ) -> inference_pb2.ModelStreamInferResponse:
        try:
            async with self._recorder.record(method=_STREAM, tenant=call.tenant, subject=call.subject) as record:
                record.describe(resource=f"{call.tenant}/models/{request.model_name}"[:512])
                return inference_pb2.ModelStreamInferResponse(infer_response=await self._infer(request, record))
        except FacetmeshError as error:
            message = f"{error.reason}: {status.to_status(error).message}"
            refused = inference_pb2.ModelInferResponse(model_name=request.model_name, id=request.id)
            return inference_pb2.ModelStreamInferResponse(error_message=message, infer_response=refused)

    async def _infer(
        self, request: inference_pb2.ModelInferRequest, record: audit.Record
    ) -> inference_pb2.ModelInferResponse:
        given = messages.given(request)
        digest = hashlib.sha256(given.data).digest()
        record.describe(inputs=[digest])
        tenant_id, model_id = _ids(request.model_name)
        version = await self._answers.choose(tenant_id, model_id, request.model_version, record.subject, lambda: digest)
        record.describe(model_version=version.name, model_sha256=version.sha256)
        with priorities.at(messages.priority(request)):
            outputs = await self._answers.infer(version, given, [output.name for output in request.outputs])
        response = messages.answer(request, version, outputs)
        # The receipt's name is not part of what it vouches for.
        record.describe(output=hashlib.sha256(response.SerializeToString(deterministic=True)).digest())
        response.parameters["receipt"].string_param = record.receipt
        return response

    async def _version(self, name: str, version: str) -> Version:
        return await self._models.choose(*_ids(name), version)

    async def _model(self, name: str) -> Model:
        return await self._models.get(*_ids(name))

    async def _all(self) -> list[Version]:
        """Each version of each model of the caller's tenant."""
        tenant_id = audit.current().tenant.rpartition("/")[2]
        found: list[Version] = []
        for model_id in await self._models.ids(tenant_id):
            try:
                model = await self._models.get(tenant_id, model_id)
            except NotFound:
                continue  # the index is a hint
            found += await self._models.versions(model, model.versions)
        return found


def _ids(name: str) -> tuple[str, str]:
    """The tenant's id and the model's.

    Nothing but the two spellings is read: the guard has seen to it that the tenant of a whole name is the caller's, and
    what it might read otherwise than this must not get through.
    """
    found = _NAME.fullmatch(name)
    if found is None:
        raise NotFound("There is no such model.", reason="MODEL_NOT_FOUND")
    return found["tenant"] or audit.current().tenant.rpartition("/")[2], found["model"]
