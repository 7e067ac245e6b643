"""The whole of detection but the mesh around it: real runners, real blobs in a folder, state in memory."""

from __future__ import annotations

import functools
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from facetmesh.detection.answers import Answers
from facetmesh.detection.detector import Detector
from facetmesh.detection.fetching import Fetcher
from facetmesh.detection.intake import Intake
from facetmesh.detection.model_servicer import ModelServicer
from facetmesh.detection.models import Models
from facetmesh.detection.quantization import Quantizer
from facetmesh.detection.servicer import DetectionServicer
from facetmesh.detection.shelf import Shelf
from facetmesh.detection.statistics import Statistics
from facetmesh.detection.store import DaprStore
from facetmesh.detection.tensors import TensorRunner
from facetmesh.detection.uploads import Uploads
from facetmesh.detection.workshop import Workshop
from facetmesh.kit import audit, catalog
from facetmesh.kit.blobs import Blobs, open_store
from facetmesh.kit.keyring import Keyring
from facetmesh.kit.profiles import Unlimited
from facetmesh.kit.signing import EventSigner
from facetmesh.kit.telemetry import Metrics
from facetmesh.runners.pool import RunnerPool

from .bus import Bus

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from .conftest import MemoryState

PART_BYTES = 1 << 20


@dataclass
class World:
    """What is served, and what is behind it."""

    detection: DetectionServicer
    models: ModelServicer
    domain: Models
    statistics: Statistics
    blobs: Path
    clear: Path
    bus: Bus


@asynccontextmanager
async def serving(state: MemoryState, folder: Path, *, profiles: Any = None, **options: Any) -> AsyncIterator[World]:
    """Detection over the state and a folder for blobs."""
    blobs, clear, bus = folder / "blobs", folder / "clear", Bus()
    clear.mkdir()
    store: Any = DaprStore(state)  # type: ignore[arg-type]
    recorder = audit.Recorder("test", EventSigner("detection", bytes(32)), bus, Metrics.create())
    tenancy = profiles or Unlimited()
    kept = Blobs(open_store(str(blobs)), Keyring(state, bytes(32)))
    shelf = Shelf(catalog, kept, clear, incoming=kept, max_bytes=256 << 20)

    def readable(domain: str) -> list[Path]:
        return [catalog.models_folder(), shelf.readable(domain)]

    async with RunnerPool("facetmesh.detection.program", readable=readable) as pool:
        models = Models(store)
        uploads = Uploads(store, kept, time.time, max_bytes=64 << 20, part_bytes=PART_BYTES)
        workshop = Workshop(functools.partial(RunnerPool, readable=readable), **options)
        intake = Intake(
            models, catalog, uploads, shelf, workshop=workshop, store=store, tenancy=tenancy, clock=time.time
        )
        quantizer = Quantizer(models, intake, shelf, workshop=workshop, policies=store, clock=time.time)
        statistics = Statistics()
        detector = Detector(shelf, pool)
        answers = Answers(models, detector, TensorRunner(detector, pool, is_loaded=pool.warm), statistics)
        fetcher = Fetcher(tenancy)
        yield World(
            DetectionServicer(answers, fetcher, recorder),
            ModelServicer(models, intake, quantizer, uploads, store), models, statistics, blobs, clear, bus,
        )
        await answers.close()
        await fetcher.close()
        await recorder.close()
