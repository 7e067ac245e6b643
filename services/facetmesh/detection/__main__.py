"""Runs the detection service."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import secrets
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from facetmesh.detection.answers import Answers
from facetmesh.detection.charging import charged
from facetmesh.detection.detector import Detector, subject
from facetmesh.detection.facts import facts
from facetmesh.detection.fetching import Fetcher
from facetmesh.detection.folders import held
from facetmesh.detection.gpu import GpuMetrics
from facetmesh.detection.intake import Intake
from facetmesh.detection.kserve_servicer import KServeServicer
from facetmesh.detection.metrics import VersionMetrics
from facetmesh.detection.model_servicer import ModelServicer
from facetmesh.detection.models import Models
from facetmesh.detection.purge import purge
from facetmesh.detection.quantization import Quantizer
from facetmesh.detection.rollout.accounts import Accounts
from facetmesh.detection.rollout.controller import TICK_S, Controller
from facetmesh.detection.rollout.counted import Counted
from facetmesh.detection.rollout.rollouts import Rollouts
from facetmesh.detection.rollout.servicer import RolloutServicer
from facetmesh.detection.rollout.store import DaprRolloutStore
from facetmesh.detection.rollout.weights import Weights
from facetmesh.detection.scheduler import Scheduler, SchedulerLimits
from facetmesh.detection.servicer import DetectionServicer
from facetmesh.detection.shelf import Shelf
from facetmesh.detection.stages import StageMetrics
from facetmesh.detection.statistics import Statistics
from facetmesh.detection.store import DaprStore
from facetmesh.detection.tensors import TensorRunner
from facetmesh.detection.uploads import Uploads
from facetmesh.detection.v1 import detection_pb2_grpc, model_pb2_grpc, rollout_pb2_grpc
from facetmesh.detection.workshop import Workshop
from facetmesh.inference import inference_pb2_grpc
from facetmesh.kit import audit, catalog, deadlines, identity, slices
from facetmesh.kit.blobs import Blobs, open_store
from facetmesh.kit.serve import open_mesh, run
from facetmesh.kit.settings import MEBIBYTE, ServiceSettings, load
from facetmesh.kit.sweeping import keep_sweeping
from facetmesh.kit.turns import Turns
from facetmesh.runners.gpu import CardMemory, open_nvml
from facetmesh.runners.pool import RunnerPool
from facetmesh.runners.probe import probe
from facetmesh.runners.settings import PoolLimits, RunnerLimits

if TYPE_CHECKING:
    import grpc

    from facetmesh.detection.scheduler import Served
    from facetmesh.kit.keyring import Keyring

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - the folder within it is ours alone


class DetectionSettings(ServiceSettings):
    """What detection is told from outside."""

    service: ClassVar[str] = "detection"
    enforces_limits: ClassVar[bool] = True
    # More than an image may have: what is a little too large is read, and refused with a reason.
    max_request_bytes: ClassVar[int] = 40 * MEBIBYTE

    slots: Annotated[int, Field(ge=1)] = Field(default_factory=lambda: len(os.sched_getaffinity(0)))
    """Cores that models may keep busy."""
    runners: Annotated[int, Field(ge=1)] = 8
    """Runner processes at a time; each tenant that calls has one."""
    runner_queue: Annotated[int, Field(ge=1)] = 64
    """Calls of one tenant that may wait."""
    runner_idle_s: Annotated[float, Field(gt=0)] = 300.0
    """A runner unused for so long is stopped, in seconds."""
    runner_memory_bytes: Annotated[int, Field(ge=256 * MEBIBYTE)] = 4096 * MEBIBYTE
    """Private memory that one runner may use."""
    runner_deaths: Annotated[int, Field(ge=1)] = 3
    """A model that ends its runner so often within a minute is quarantined."""
    runners_memory_bytes: Annotated[int, Field(ge=256 * MEBIBYTE)] = 16384 * MEBIBYTE
    """What all runners may take together, as it is measured; the least recently used one makes room."""
    runners_gpu_memory_bytes: Annotated[int, Field(ge=256 * MEBIBYTE)] | None = None
    """What all runners may take of NVIDIA cards' memory together, in the same way; all of it when unset."""
    pinned_tenants: frozenset[str] = frozenset()
    """Ids of tenants whose runners stay, idle or not, as a JSON list."""
    blobs: str = ""
    """Where uploaded models are kept: a folder or a URL such as s3://bucket/prefix; a folder below home when empty."""
    max_model_bytes: Annotated[int, Field(ge=MEBIBYTE)] = 512 * MEBIBYTE
    """The largest model file that is taken."""
    model_cache_bytes: Annotated[int, Field(ge=MEBIBYTE)] = 2048 * MEBIBYTE
    """How much uploaded models may take in clear, in memory, for runners to read."""
    serves_alias: str = ""
    """The alias that this process answers with where a call names no version, such as canary; by the model's traffic
    when empty. For deployments that split calls by replica."""
    rollouts: Literal["here", "elsewhere"] = "here"
    """Whether this process drives rollouts, by its own weights and what it counts itself; where there are several
    replicas, a process of their own does (facetmesh.detection.rollout)."""


async def main() -> None:
    """Builds the service and serves it."""
    settings = load(DetectionSettings)
    async with open_mesh(settings) as mesh, contextlib.AsyncExitStack() as stack:
        setting = (await asyncio.to_thread(probe, catalog.cache_folder())).chosen()
        limits = PoolLimits(
            runners=settings.runners,
            memory_bytes=settings.runners_memory_bytes,
            gpu_memory_bytes=settings.runners_gpu_memory_bytes,
            queue=settings.runner_queue,
            idle_s=settings.runner_idle_s,
            deaths=settings.runner_deaths,
            # Half for the models that are there, so that one more fits whatever there was.
            runner=RunnerLimits(
                memory_bytes=settings.runner_memory_bytes,
                kept_bytes=settings.runner_memory_bytes // 2,
                concurrency=settings.slots,
            ),
        )
        store = DaprStore(mesh.dapr.state())
        rollout_store = DaprRolloutStore(mesh.dapr.state())
        processes = functools.partial(
            RunnerPool, setting=setting, readable=lambda domain: [catalog.models_folder(), shelf.readable(domain)]
        )
        clear = stack.enter_context(held(_memory()))
        nvml = open_nvml()
        pool = await stack.enter_async_context(
            processes(
                "facetmesh.detection.program",
                limits=limits,
                pinned=settings.pinned_tenants.__contains__,
                gpu_bytes=CardMemory(nvml),
            )
        )
        stages = StageMetrics(pool)
        statistics = Statistics(settings.now)
        mesh.telemetry.metrics.registry.register(VersionMetrics(statistics))
        charge = charged(mesh.leases, identity.charged_subject)

        def account(served: Served) -> None:
            stages.add(served)
            charge(served)
            statistics.cost(served)

        scheduler = Scheduler(
            pool,
            SchedulerLimits(settings.slots, queue=settings.runner_queue),
            weight=lambda tenant_id: mesh.leases.profile(f"tenants/{tenant_id}").weight,
            queued=audit.queued,
            served=account,
            patience=deadlines.seconds_left,
        )
        stack.callback(scheduler.close)
        stages.watch(scheduler)
        mesh.telemetry.metrics.registry.register(stages)
        if nvml is not None:
            mesh.telemetry.metrics.registry.register(GpuMetrics(nvml))
        workshop = Workshop(processes)
        turns = Turns(scheduler.queues, (workshop, scheduler))
        blobs, incoming = _blobs(settings, await mesh.keyring(), turns)
        shelf: Shelf = Shelf(catalog, blobs, clear, incoming=incoming, max_bytes=settings.model_cache_bytes)
        mesh.purge = functools.partial(purge, store, rollout_store, blobs, shelf)
        models = Models(store, serves=settings.serves_alias)
        uploads = Uploads(store, incoming, settings.now, max_bytes=settings.max_model_bytes)
        intake = Intake(
            models,
            catalog,
            uploads,
            shelf,
            workshop=workshop,
            store=store,
            tenancy=mesh.leases,
            clock=settings.now,
        )
        quantizer = Quantizer(models, intake, shelf, workshop=workshop, policies=store, clock=settings.now)
        detector = Detector(shelf, scheduler)
        answers = Answers(models, detector, TensorRunner(detector, scheduler, is_loaded=pool.warm), statistics)
        stack.push_async_callback(answers.close)
        fetcher = Fetcher(mesh.leases)
        stack.push_async_callback(fetcher.close)

        rollouts = Rollouts(
            models, rollout_store, clock=settings.now,
            is_quarantined=lambda version: pool.quarantined(version.tenant_id, subject(version)),
        )  # fmt: skip

        def add_to_server(server: grpc.aio.Server) -> None:
            detection_pb2_grpc.add_DetectionServiceServicer_to_server(
                DetectionServicer(answers, fetcher, mesh.recorder), server
            )
            model_pb2_grpc.add_ModelServiceServicer_to_server(
                ModelServicer(models, intake, quantizer, uploads, store), server
            )
            rollout_pb2_grpc.add_RolloutServiceServicer_to_server(RolloutServicer(rollouts), server)
            inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(
                KServeServicer(models, answers, statistics, mesh.recorder), server
            )

        stack.callback(asyncio.create_task(keep_sweeping(uploads.sweep, intake.sweep)).cancel)
        if settings.rollouts == "here":
            controller = Controller(
                rollouts, Weights(models), Counted(statistics.read), Accounts(mesh.recorder),
                holder=secrets.token_hex(8), wall=settings.now,
            )  # fmt: skip
            stack.callback(asyncio.create_task(controller.run(TICK_S)).cancel)
        await mesh.serve(
            add_to_server,
            services=[
                "facetmesh.detection.v1.DetectionService",
                "facetmesh.detection.v1.ModelService",
                "facetmesh.detection.v1.RolloutService",
                "inference.GRPCInferenceService",
            ],
            ready={},
            facts=facts(models),
            turns=turns,
        )


def _blobs(settings: DetectionSettings, keyring: Keyring, turns: Turns) -> tuple[Blobs, Blobs]:
    """The files of models as they are read to be served, and the same as they come: those are in no hurry."""
    store = open_store(settings.blobs or str(settings.home / "model-blobs"))
    return Blobs(store, keyring), Blobs(store, keyring, turns.stand_aside)


def _memory() -> Path:
    """A folder that lies in memory; the system's temporary folder where there is none."""
    return _SHARED_MEMORY if os.access(_SHARED_MEMORY, os.W_OK) else Path(tempfile.gettempdir())


if __name__ == "__main__":
    # Before there are other threads. It says who stands still for whom, and must not wait for who will.
    slices.ask(slices.SHORT)
    run(main)
