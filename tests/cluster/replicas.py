"""Two subsets of detection, as far as a rollout can tell: real models, splits, shadows, counters and metrics.

What a model would find, how long it takes and whether it fails is told them; so no
engine makes the figures of a rollout depend on the machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
from aiohttp import web
from aiohttp.test_utils import TestServer
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from tests.contract.harness import free_port

from facetmesh.detection.answers import Answers
from facetmesh.detection.detector import Detection, Image, Options, Result
from facetmesh.detection.messages import response
from facetmesh.detection.metrics import VersionMetrics
from facetmesh.detection.models import Models
from facetmesh.detection.scheduler import Served
from facetmesh.detection.statistics import Statistics
from facetmesh.detection.store import DaprStore
from facetmesh.detection.v1 import detection_pb2
from facetmesh.kit import status
from facetmesh.kit.errors import FacetmeshError, Internal
from facetmesh.runners.tasks import Reply

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from facetmesh.detection.versions import Version

USUAL_S = 0.02


@dataclass(frozen=True)
class Behaviour:
    """What a version is like."""

    errors: float = 0.0
    """The share of calls that fail."""
    seconds: float = USUAL_S
    """How long a call takes."""
    left: float = 10.0
    """Where it sees what it sees."""


class Replica:
    """A process of a subset, within ours."""

    def __init__(self, subset: str, alias: str, state: Any, behaviours: Mapping[int, Behaviour]) -> None:
        self.subset = subset
        self.port = free_port()
        self.metrics = ""
        """Host and port of its metrics, while it serves."""
        self._behaviours = behaviours
        self._models = Models(DaprStore(state), serves=alias)
        self._statistics = Statistics()
        self._answers = Answers(self._models, self, None, self._statistics)  # type: ignore[arg-type]
        self._random = random.Random(7)  # noqa: S311 - no secret

    async def detect(self, version: Version, image: Image, options: Options) -> Result:
        """What the version finds."""
        del image, options
        like = self._behaviours[version.number]
        await asyncio.sleep(like.seconds)
        if self._random.random() < like.errors:
            raise Internal("It does not work.")
        self._statistics.cost(
            Served(version.tenant_id, "detect", f"models/{version.model_id}/versions/{version.number}", queue_s=0,
                   run_s=like.seconds, compute_s=like.seconds, cold=False, reply=Reply(), error=None)
        )  # fmt: skip
        box = (like.left, 10.0, like.left + 20, 30.0)
        return Result((Detection(box, "cat", 0, min(0.99, self._random.gauss(0.8, 0.05))),), 64, 64)

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        """Handles Detect, whatever method is called."""
        del details
        return grpc.unary_unary_rpc_method_handler(
            self._answer, detection_pb2.DetectRequest.FromString, detection_pb2.DetectResponse.SerializeToString
        )

    async def _answer(
        self, request: detection_pb2.DetectRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> detection_pb2.DetectResponse:
        _, tenant_id, _, model_id = request.model.split("/")
        try:
            version = await self._answers.choose(tenant_id, model_id, "", "")
            return response(await self._answers.detect(version, Image(b""), Options()), version)
        except FacetmeshError as error:
            await status.abort(context, error)
            raise

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Calls on its port, metrics where Prometheus looks for them."""
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((self,))
        server.add_insecure_port(f"127.0.0.1:{self.port}")
        registry = CollectorRegistry()
        registry.register(VersionMetrics(self._statistics))

        async def metrics(_: web.Request) -> web.Response:
            return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

        app = web.Application()
        app.router.add_get("/metrics", metrics)
        async with TestServer(app) as metrics_server:
            self.metrics = f"{metrics_server.host}:{metrics_server.port}"
            await server.start()
            try:
                yield
            finally:
                await server.stop(0)
                await self._answers.close()
