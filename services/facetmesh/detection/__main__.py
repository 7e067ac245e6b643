"""Runs the detection service."""

from __future__ import annotations

import asyncio
import functools
import time
from typing import Annotated, ClassVar

from pydantic import Field

from facetmesh.detection.detector import Detector, describe
from facetmesh.detection.models import Models
from facetmesh.detection.servicer import DetectionServicer
from facetmesh.detection.store import DaprStore
from facetmesh.detection.v1 import detection_pb2_grpc
from facetmesh.kit import catalog
from facetmesh.kit.serve import open_mesh, run
from facetmesh.kit.settings import MEBIBYTE, ServiceSettings, load
from facetmesh.runners.pool import RunnerPool
from facetmesh.runners.probe import probe
from facetmesh.runners.settings import PoolLimits, RunnerLimits


class DetectionSettings(ServiceSettings):
    """What detection is told from outside."""

    service: ClassVar[str] = "detection"
    # More than an image may have: what is a little too large is read, and refused with a reason.
    max_request_bytes: ClassVar[int] = 64 * MEBIBYTE

    runners: Annotated[int, Field(ge=1)] = 8
    """Runner processes at a time; each tenant that calls has one."""
    runner_queue: Annotated[int, Field(ge=1)] = 64
    """Calls of one tenant that may wait."""
    runner_idle_s: Annotated[float, Field(gt=0)] = 300.0
    """A runner unused for so long is stopped, in seconds."""
    runner_memory_bytes: Annotated[int, Field(ge=256 * MEBIBYTE)] = 4096 * MEBIBYTE
    """Private memory that one runner may use."""


async def main() -> None:
    """Builds the service and serves it."""
    settings = load(DetectionSettings)
    async with open_mesh(settings) as mesh:
        setting = (await asyncio.to_thread(probe, catalog.cache_folder())).chosen()
        # Two at a time: while the engine has one image, the next is decoded.
        limits = PoolLimits(
            runners=settings.runners,
            queue=settings.runner_queue,
            idle_s=settings.runner_idle_s,
            runner=RunnerLimits(memory_bytes=settings.runner_memory_bytes, concurrency=2),
        )
        async with RunnerPool("facetmesh.detection.program", setting=setting, limits=limits) as pool:
            models = Models(DaprStore(mesh.dapr.state()), catalog, functools.partial(describe, pool), time.time)
            servicer = DetectionServicer(models, Detector(models, pool))
            await mesh.serve(
                lambda server: detection_pb2_grpc.add_DetectionServiceServicer_to_server(servicer, server),
                services=["facetmesh.detection.v1.DetectionService"],
                ready={},
            )


if __name__ == "__main__":
    run(main)
