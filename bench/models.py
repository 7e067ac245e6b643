"""Sixty models on a memory budget for ten: how long loads take, and what a pinned tenant feels of them.

Thirty tenants have two models each, made here. First each model is asked once, so
that each is loaded; what is resident meanwhile is measured from outside. Then a
pinned tenant asks at a steady rate, in turns alone, beside a neighbourhood whose
ten models fit into the budget, and beside one that asks for all sixty, the favourites
most: both neighbourhoods ask all the time, so that only the loads differ.
`python -m bench.models [--seconds S] [--rate R] [--turns N] [--tenants N]`; results go to
results/models.json, and how long the pinned tenant waited is drawn in results/models.svg.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import grpc
import numpy as np
import onnx
import psutil
from onnx import TensorProto, helper, numpy_helper

from bench import chart, common, inputs, mesh, steady
from facetmesh.client import AsyncClient, Endpoints
from facetmesh.detection.v1 import detection_pb2, detection_pb2_grpc
from facetmesh.runners.memory import resident_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

OF_EACH = ("cars", "birds")
"""Each tenant's models."""
FIT = 5
"""So many tenants' models fit into the budget."""
PINNED = "pinned"
_CASES = ("alone", "fitting", "crowded")
_SIDE, _WIDTH, _CANDIDATES = 64, 1024, 64
_LOOK_S = 0.1
_PATIENCE_S = 60.0
_SPARE = 1.1
"""What a runner takes differs a little from time to time."""


def main() -> None:
    """Measures, and writes the results; with "crowd", asks on the neighbourhood's behalf."""
    if sys.argv[1:2] == ["crowd"]:
        print(json.dumps(asyncio.run(crowd(**json.loads(sys.argv[2])))))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="how long each case is measured in a turn")
    parser.add_argument("--turns", type=int, default=3, help="how often")
    parser.add_argument("--rate", type=float, default=8.0, help="images a second that the pinned tenant asks for")
    parser.add_argument("--tenants", type=int, default=30, help="how many have two models each")
    options = parser.parse_args()
    tenants = [f"tenant-{number:02}" for number in range(options.tenants)]
    busy = common.busy()
    machine = common.Machine.here("openvino", "grpcio", "facetmesh")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        with mesh.running(home, environment=_environment(tenants, 1 << 40)) as running:
            figures = prepare(running, tenants)
        with mesh.running(home, environment=_environment(tenants, figures["budget_bytes"])) as running:
            found, cases = measure(running, tenants, options.seconds, options.rate, options.turns)
    figures |= found | compare(cases, options.seconds * options.turns)
    print(json.dumps(figures, indent=2))
    written = common.write(
        "models", machine, {**figures, "rate": options.rate, "turns": options.turns}, busy=busy or common.busy()
    )
    waits = {name: case.pinned.times_s for name, case in cases.items()}
    print(written, chart.quantiles(written.with_suffix(".svg"), "How long a pinned tenant waits for an answer", waits))


@dataclass(slots=True)
class Case:
    """What was seen in one case."""

    pinned: steady.Answers = field(default_factory=steady.Answers)
    neighbours: steady.Answers = field(default_factory=steady.Answers)
    loads: int = 0
    evictions: int = 0


def prepare(running: mesh.Mesh, tenants: Sequence[str]) -> dict[str, Any]:
    """Uploads the models, and measures what memory ten of them take, beside the pinned tenant's."""
    files = [network(number) for number in range(len(tenants) * len(OF_EACH))]
    keys = [running.key(tenant) for tenant in tenants]
    uploads_s = asyncio.run(_upload(running.endpoints, keys, files))
    asked = [[tenant, model] for tenant in tenants[:FIT] for model in OF_EACH] + [[PINNED, mesh.MODEL]]
    for _ in range(2):
        _raise(_crowd(running, asked, once=True))
    return {
        "models": len(files),
        "model_file_bytes": max(map(len, files)),
        "budget_models": FIT * len(OF_EACH),
        "budget_bytes": round(_SPARE * sum(_runners(running).values())),
        "upload_ms": steady.quantiles(uploads_s),
    }


def measure(
    running: mesh.Mesh, tenants: Sequence[str], seconds: float, rate: float, turns: int
) -> tuple[dict[str, Any], dict[str, Case]]:
    """What loads take and what is resident meanwhile; and the cases, in turns."""
    everything = [[tenant, model] for tenant in tenants for model in OF_EACH]
    fitting = [[tenant, model] for tenant in tenants[:FIT] for model in OF_EACH]
    cases = {name: Case() for name in _CASES}
    _raise(_crowd(running, [[PINNED, mesh.MODEL]], once=True))
    (pinned,) = _runners(running)
    with Watch(running) as watch:
        first = _crowd(running, everything, once=True)
        _raise(first)
        for _ in range(turns):
            for name, asked in (("alone", []), ("fitting", fitting), ("crowded", everything)):
                if name == "fitting":
                    _raise(_crowd(running, fitting, once=True))
                _case(running, cases[name], asked, seconds, rate)
    times = first["times_s"]
    return {
        "start_and_load_ms": steady.quantiles(times[0 :: len(OF_EACH)]),
        "load_ms": steady.quantiles(times[1 :: len(OF_EACH)]),
        "most_bytes": watch.most,
        "most_runners": watch.runners,
        "pinned_stayed": pinned in _runners(running),
    }, cases


def compare(cases: Mapping[str, Case], seconds: float) -> dict[str, Any]:
    """The pinned tenant's `p99_ratio`: beside sixty models to beside ten; and what was seen in each case."""
    found = {name: case.pinned.figures(seconds) for name, case in cases.items()}
    return {
        "p99_ratio": round(found["crowded"]["p99_ms"] / found["fitting"]["p99_ms"], 2),
        "p99_ratio_to_alone": round(found["crowded"]["p99_ms"] / found["alone"]["p99_ms"], 2),
        "errors": sum((case.pinned.errors + case.neighbours.errors).total() for case in cases.values()),
        "seconds": seconds,
        **{
            name: {
                "pinned": found[name], "neighbours": case.neighbours.figures(seconds), "loads": case.loads,
                "evictions": case.evictions,
            }
            for name, case in cases.items()
        },
    }  # fmt: skip


def network(number: int) -> bytes:
    """A detector of 9 MB as an ONNX file: convolutions and two layers of random weights, other ones for each number."""
    chance = np.random.default_rng(number)
    labels = ("one", "two")
    features = 32 * (_SIDE // 8) ** 2
    shapes = {
        "eyes": (32, 3, 8, 8), "first": (features, _WIDTH), "second": (_WIDTH, (4 + len(labels)) * _CANDIDATES),
    }  # fmt: skip
    weights = {
        name: (chance.standard_normal(shape) / np.sqrt(np.prod(shape[-2:]))).astype(np.float32)
        for name, shape in shapes.items()
    }
    nodes = [
        helper.make_node("Conv", ["images", "eyes"], ["seen"], strides=[8, 8]),
        helper.make_node("Relu", ["seen"], ["features"]),
        helper.make_node("Flatten", ["features"], ["flat"]),
        helper.make_node("Gemm", ["flat", "first"], ["hidden"]),
        helper.make_node("Sigmoid", ["hidden"], ["bounded"]),
        helper.make_node("Gemm", ["bounded", "second"], ["said"]),
        helper.make_node("Sigmoid", ["said"], ["sure"]),
        helper.make_node("Reshape", ["sure", "shape"], ["output0"]),
    ]
    constants = [numpy_helper.from_array(values, name) for name, values in weights.items()]
    shape = np.array([1, 4 + len(labels), _CANDIDATES], np.int64)
    graph = helper.make_graph(
        nodes, "network",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, _SIDE, _SIDE])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, shape.tolist())],
        [*constants, numpy_helper.from_array(shape, "shape")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"names": str(dict(enumerate(labels))), "task": "detect"})
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


async def crowd(
    home: str, asked: Sequence[Sequence[str]], keys: Mapping[str, str], seconds: float, seed: int, *, once: bool
) -> dict[str, Any]:
    """Asks for one model after the other, the next when there is an answer.

    Args:
        home: The mesh's state folder.
        asked: Tenants and their models, of which the first is asked for most: the n-th 1/n as often.
        keys: The tenants' keys.
        seconds: For how long.
        seed: Of the order.
        once: Asks for each once, in their order, instead.
    """
    endpoints = Endpoints.read(Path(home) / "endpoints.json")
    photo = await asyncio.to_thread(inputs.photo().read_bytes)
    tokens = {}
    async with AsyncExitStack() as stack:
        for tenant in dict.fromkeys(tenant for tenant, _ in asked):
            client = await stack.enter_async_context(AsyncClient(keys[tenant], endpoints))
            tokens[tenant] = (await client.token()).access_token
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(endpoints.detection))
        stub: Any = detection_pb2_grpc.DetectionServiceStub(channel)
        times: list[float] = []
        errors: Counter[str] = Counter()
        for tenant, model in asked if once else _skewed(asked, seconds, seed):
            request = detection_pb2.DetectRequest(model=f"tenants/{tenant}/models/{model}", image=photo)
            began = time.perf_counter()
            try:
                await stub.Detect(
                    request, metadata=(("authorization", f"Bearer {tokens[tenant]}"),), timeout=_PATIENCE_S
                )
            except grpc.aio.AioRpcError as error:
                errors[f"{error.code().name} {error.details()}"] += 1
            else:
                times.append(time.perf_counter() - began)
    return {"times_s": times, "errors": dict(errors)}


class Watch:
    """Looks again and again at what the runners take."""

    def __init__(self, running: mesh.Mesh) -> None:
        self.most = 0
        """Most bytes at a time."""
        self.runners = 0
        """Most runners at a time."""
        self._running = running
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Self:
        """Starts looking."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Ends it."""
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(_LOOK_S):
            found = _runners(self._running)
            self.most = max(self.most, sum(found.values()))
            self.runners = max(self.runners, len(found))


def _environment(tenants: Sequence[str], budget_bytes: int) -> dict[str, str]:
    """Of a mesh whose only limit to runners is their memory."""
    return {
        "FACETMESH_RUNNERS": str(len(tenants) + 1),
        "FACETMESH_RUNNERS_MEMORY_BYTES": str(budget_bytes),
        "FACETMESH_PINNED_TENANTS": json.dumps([PINNED]),
    }


async def _upload(endpoints: Endpoints, keys: Sequence[str], files: Sequence[bytes]) -> list[float]:
    times_s = []
    for number, file in enumerate(files):
        async with AsyncClient(keys[number // len(OF_EACH)], endpoints) as client:
            began = time.perf_counter()
            await client.upload_model(OF_EACH[number % len(OF_EACH)], file, licence="MIT")
            times_s.append(time.perf_counter() - began)
    return times_s


def _case(
    running: mesh.Mesh, case: Case, asked: Sequence[Sequence[str]], seconds: float, rate: float
) -> None:
    """One turn of a case."""
    before = _counts(running)
    pinned = steady.asking(running, PINNED, rate, seconds)
    if asked:
        case.neighbours.add(_crowd(running, asked, seconds=seconds, seed=len(case.neighbours.times_s)))
    case.pinned.add(json.loads(pinned.communicate()[0]))
    after = _counts(running)
    case.loads += after[0] - before[0]
    case.evictions += after[1] - before[1]


def _counts(running: mesh.Mesh) -> tuple[int, int]:
    names = ("facetmesh_version_loads_total", "facetmesh_runner_evictions_total")
    loads, evictions = (round(running.total(name)) for name in names)
    return loads, evictions


def _crowd(
    running: mesh.Mesh, asked: Sequence[Sequence[str]], *, seconds: float = 0.0, seed: int = 0, once: bool = False
) -> dict[str, Any]:
    keys = {tenant: running.key(tenant) for tenant, _ in asked}
    job = {"home": str(running.home), "asked": asked, "keys": keys, "seconds": seconds, "seed": seed, "once": once}
    command = [sys.executable, "-m", "bench.models", "crowd", json.dumps(job)]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return found


def _raise(found: Mapping[str, Any]) -> None:
    if found["errors"]:
        raise SystemExit(f"a call that measures nothing failed: {found['errors']}")


def _skewed(asked: Sequence[Sequence[str]], seconds: float, seed: int) -> Iterator[Sequence[str]]:
    chance = random.Random(seed)  # noqa: S311 - no secret
    weights = [1 / (1 + rank) for rank in range(len(asked))]
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        yield from chance.choices(asked, weights)


def _runners(running: mesh.Mesh) -> dict[int, int]:
    """The process ids of detection's runners, and what each takes, in bytes."""
    found = {}
    for child in psutil.Process(running.pid("detection")).children():
        with suppress(psutil.NoSuchProcess):  # it ended meanwhile
            if "facetmesh.runners.worker" in child.cmdline():
                found[child.pid] = resident_bytes(child.pid)
    return found


if __name__ == "__main__":
    main()
