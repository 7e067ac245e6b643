"""A model's raw tensors, and when its process has it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest
from tests.unit import onnx_models

from facetmesh.detection import kserve_messages
from facetmesh.detection.detector import Detector, subject
from facetmesh.detection.scheduler import Served
from facetmesh.detection.statistics import Statistics
from facetmesh.detection.tensors import Array, TensorRunner
from facetmesh.detection.versions import Facts, Tensor, Version
from facetmesh.inference import inference_pb2
from facetmesh.kit.errors import Unavailable
from facetmesh.runners.pool import RunnerPool
from facetmesh.runners.settings import PoolLimits, RunnerLimits
from facetmesh.runners.tasks import Reply

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = (1, 3, onnx_models.SIDE, onnx_models.SIDE)
PATIENCE_S = 120.0


class Files:
    """A folder with one file."""

    def __init__(self, path: Path) -> None:
        """Has it."""
        self._path = path

    async def path(self, _: Version) -> Path:
        """It."""
        return self._path


@pytest.fixture
def version() -> Version:
    """A version whose file is `onnx_models.detector`'s."""
    data = onnx_models.detector((32, 32, 20, 10, 0, 0.9))
    facts = Facts(
        ("cat", "dog"), "detect", SHAPE[2], SHAPE[3], (Tensor("images", "FP32", SHAPE),),
        (Tensor("output0", "FP32", (1, 6, 8)),),
    )  # fmt: skip
    return Version("acme", "pets", 1, hashlib.sha256(data).hexdigest(), len(data), "MIT", facts, 0.0)


async def test_what_is_not_loaded_is_not_started_to_be_let_go_of(tmp_path: Path, version: Version) -> None:
    """And what is loaded is let go of in the process that has it."""
    file = tmp_path / "pets.onnx"
    file.write_bytes(onnx_models.detector((32, 32, 20, 10, 0, 0.9)))
    limits = PoolLimits(runner=RunnerLimits(start_timeout_s=PATIENCE_S))
    async with RunnerPool("facetmesh.detection.program", limits=limits) as pool:
        tensors = TensorRunner(Detector(Files(file), pool), pool, is_loaded=pool.warm)
        await tensors.unload(version)
        assert pool.pids() == {}
        await tensors.load(version)
        assert pool.warm("acme", subject(version))
        (pid,) = pool.pids().values()
        await tensors.unload(version)
        assert not pool.warm("acme", subject(version))
        await tensors.unload(version)
        given = Array("images", "FP32", SHAPE, bytes(4 * 3 * SHAPE[2] * SHAPE[3]))
        (output,) = await tensors.infer(version, given, [])
        assert output.shape == (1, 6, 8)
        assert pool.pids() == {"acme": pid}


def test_tritons_statistics(version: Version) -> None:
    """Each stage has its count; what failed or did not answer is in none, and what ran together ran once."""
    statistics = Statistics(lambda: 7.0)
    timings_ms = {"decode": 1.0, "infer": 5.0, "post": 2.0}
    for task, reply, error in (
        ("infer", Reply(timings_ms=timings_ms, batch=2), None), ("detect", Reply(timings_ms=timings_ms, batch=2), None),
        ("load", Reply(timings_ms=timings_ms), None), ("infer", None, Unavailable("It died.", reason="RUNNER_DIED")),
    ):  # fmt: skip
        statistics.cost(Served(
            "acme", task, subject(version), queue_s=0.003, run_s=0.01, compute_s=0.01, cold=False, reply=reply,
            error=error,
        ))  # fmt: skip
    for ok in (True, True, False):
        statistics.ended(version, 0.015, ok=ok)
    found = kserve_messages.statistics(version, statistics.of(version.name))
    assert (found.inference_count, found.execution_count, found.last_inference) == (2, 1, 7000)
    durations = {
        field.name: (value.count, pytest.approx(value.ns, rel=1e-6))
        for field, value in found.inference_stats.ListFields()
    }
    assert durations == {
        "success": (2, 30_000_000), "fail": (1, 15_000_000), "queue": (2, 6_000_000), "compute_input": (2, 2_000_000),
        "compute_infer": (2, 10_000_000), "compute_output": (2, 4_000_000),
    }  # fmt: skip


def test_a_version_that_nobody_asked_has_zeros(version: Version) -> None:
    """And not nothing: clients divide by counts that they expect."""
    found = kserve_messages.statistics(version, Statistics().of(version.name))
    assert found.inference_stats.queue == inference_pb2.StatisticDuration()
    assert found.inference_stats.HasField("compute_output")
