"""The noisy neighbour: what a tenant feels of another that behaves badly.

Tenant a asks at a steady rate, and so does tenant b. Then b floods at twenty times
that rate, sends images that claim to be huge, uploads one model after the other, and
its runner is killed again and again. Both cases are measured in turns.
`python -m bench.noisy [--seconds S] [--rate R] [--turns N]`; results go to
results/noisy.json, and how long tenant a waited is drawn in results/noisy.svg.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from bench import chart, common, inputs, mesh
from facetmesh.client import AsyncClient, Endpoints
from facetmesh.detection.v1 import detection_pb2, detection_pb2_grpc
from facetmesh.kit.errors import FacetmeshError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FLOOD = 20
"""How many times its share the neighbour asks for."""
_KILL_EVERY_S = 0.5
_PATIENCE_S = 30.0


def main() -> None:
    """Measures, and writes the results; with a task's name, does that on a tenant's behalf."""
    if sys.argv[1:2] in (["ask"], ["upload"]):
        task = {"ask": ask, "upload": upload}[sys.argv[1]]
        print(json.dumps(asyncio.run(task(**json.loads(sys.argv[2])))))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each case is measured in a turn")
    parser.add_argument("--turns", type=int, default=3, help="how often")
    parser.add_argument("--rate", type=float, default=8.0, help="images a second that each tenant's share is")
    options = parser.parse_args()
    busy = common.noisy()
    machine = common.Machine.here("openvino", "grpcio", "facetmesh")
    cases = measure(options.seconds, options.rate, options.turns)
    figures = compare(cases, options.seconds * options.turns)
    print(json.dumps(figures, indent=2))
    written = common.write(
        "noisy", machine, {**figures, "rate": options.rate, "flood": FLOOD, "turns": options.turns},
        noisy=busy or common.noisy(),
    )  # fmt: skip
    waits = {f"beside a {name} neighbour": case["a"].times_s for name, case in cases.items()}
    print(written, chart.quantiles(written.with_suffix(".svg"), "How long a tenant waits for an answer", waits))


@dataclass(slots=True)
class Answers:
    """What a tenant got in one case."""

    times_s: list[float] = field(default_factory=list)
    """How long each answer took."""
    errors: Counter[str] = field(default_factory=Counter)
    """Refusals and failures, by status code."""

    def add(self, found: Mapping[str, Any]) -> None:
        """Adds what `ask` returned."""
        self.times_s.extend(found["times_s"])
        self.errors.update(found["errors"])

    def figures(self, seconds: float) -> dict[str, Any]:
        """What goes into the results."""
        times = sorted(self.times_s)
        quantile = {f"p{share}_ms": round(1000 * times[len(times) * share // 100], 1) if times else None
                    for share in (50, 90, 99)}  # fmt: skip
        return {"ips": round(len(times) / seconds, 2), **quantile, "errors": dict(self.errors)}


def measure(seconds: float, rate: float, turns: int) -> dict[str, dict[str, Answers]]:
    """Both tenants' answers in both cases, which take turns on one mesh."""
    cases = {name: {"a": Answers(), "b": Answers()} for name in ("quiet", "noisy")}
    with tempfile.TemporaryDirectory() as folder, mesh.running(Path(folder) / "home") as running:
        for tenant in ("a", "b"):
            running.key(f"tenant-{tenant}")
        _both(running, 3.0, rate, rate)  # warm
        for _ in range(turns):
            _add(cases["quiet"], _both(running, seconds, rate, rate))
            with _killing(running), _uploading(running):
                _add(cases["noisy"], _both(running, seconds, rate, FLOOD * rate))
    return cases


def compare(cases: Mapping[str, Mapping[str, Answers]], seconds: float) -> dict[str, Any]:
    """Tenant a's `p99_ratio`, `throughput_ratio` and `errors`, beside what was measured of both in each case."""
    found = {name: {tenant: one.figures(seconds) for tenant, one in case.items()} for name, case in cases.items()}
    quiet, noisy = found["quiet"]["a"], found["noisy"]["a"]
    return {
        "p99_ratio": round(noisy["p99_ms"] / quiet["p99_ms"], 2),
        "throughput_ratio": round(noisy["ips"] / quiet["ips"], 3),
        "errors": sum(noisy["errors"].values()),
        "seconds": seconds,
        **found,
    }


async def ask(home: str, key: str, rate: float, seconds: float, *, bombs: bool) -> dict[str, Any]:
    """Asks at a steady rate, whether answers come or not.

    Args:
        home: The mesh's state folder.
        key: The tenant's.
        rate: Calls a second.
        seconds: For how long.
        bombs: Makes every tenth image one that claims to be huge.
    """
    endpoints = Endpoints.read(Path(home) / "endpoints.json")
    async with AsyncClient(key, endpoints) as client:
        token = await client.token()
    metadata = (("authorization", f"Bearer {token.access_token}"),)
    name = f"{token.tenant}/models/{mesh.MODEL}"
    good = detection_pb2.DetectRequest(model=name, image=inputs.photo().read_bytes())
    bomb = detection_pb2.DetectRequest(model=name, image=_bomb())
    times: list[float] = []
    errors: Counter[str] = Counter()

    async def one(stub: Any, request: Any) -> None:
        began = time.perf_counter()
        try:
            await stub.Detect(request, metadata=metadata, timeout=_PATIENCE_S)
        except grpc.aio.AioRpcError as error:
            errors[error.code().name] += 1
        else:
            times.append(time.perf_counter() - began)

    async with grpc.aio.insecure_channel(endpoints.detection) as channel, asyncio.TaskGroup() as calls:
        stub = detection_pb2_grpc.DetectionServiceStub(channel)
        began = time.perf_counter()
        for number in range(round(rate * seconds)):
            await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
            calls.create_task(one(stub, bomb if bombs and number % 10 == 9 else good))  # noqa: PLR2004 - the tenth
    return {"times_s": times, "errors": dict(errors)}


async def upload(home: str, key: str) -> None:
    """Uploads models, one after the other, each another file; until it is stopped."""
    file = inputs.model().read_bytes()
    async with AsyncClient(key, Endpoints.read(Path(home) / "endpoints.json")) as client:
        for number in itertools.count():
            with contextlib.suppress(FacetmeshError):  # its limits are its own affair
                await client.upload_model(f"upload-{number % 4}", _changed(file, number), licence=inputs.LICENCE)


def _changed(file: bytes, number: int) -> bytes:
    """The same model in another file: with one more entry in its metadata (ModelProto's field 14)."""
    entry = b"".join(
        bytes([tag, len(text)]) + text for tag, text in ((0x0A, b"bench"), (0x12, str(number).encode()))
    )
    return file + bytes([0x72, len(entry)]) + entry


def _add(case: Mapping[str, Answers], found: Mapping[str, Mapping[str, Any]]) -> None:
    for tenant, answers in found.items():
        case[tenant].add(answers)


def _both(running: mesh.Mesh, seconds: float, rate_a: float, rate_b: float) -> dict[str, Any]:
    asking = {
        name: subprocess.Popen(
            [sys.executable, "-m", "bench.noisy", "ask", json.dumps({
                "home": str(running.home), "key": running.key(f"tenant-{name}"), "rate": rate, "seconds": seconds,
                "bombs": name == "b" and rate_b > rate_a,
            })],
            stdout=subprocess.PIPE, text=True,
        )
        for name, rate in (("a", rate_a), ("b", rate_b))
    }  # fmt: skip
    return {name: json.loads(process.communicate()[0]) for name, process in asking.items()}


@contextlib.contextmanager
def _uploading(running: mesh.Mesh) -> Iterator[None]:
    """The neighbour uploads models meanwhile."""
    job = json.dumps({"home": str(running.home), "key": running.key("tenant-b")})
    child = subprocess.Popen([sys.executable, "-m", "bench.noisy", "upload", job])
    try:
        yield
    finally:
        child.terminate()
        child.wait()


@contextlib.contextmanager
def _killing(running: mesh.Mesh) -> Iterator[None]:
    """Kills the neighbour's runner again and again, as a model would that crashes it."""
    child = subprocess.Popen([sys.executable, "-c", _KILLER, "/tenant-b", str(_detection(running)), str(_KILL_EVERY_S)])
    try:
        yield
    finally:
        child.send_signal(signal.SIGTERM)
        child.wait()


_KILLER = """
import os, sys, time
folder, service, every = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])  # only its runner may read its folder
while True:
    for child in psutil.Process(service).children():
        try:
            if folder in " ".join(child.cmdline()):
                child.kill()
        except psutil.Error:
            pass  # it was gone already
    time.sleep(every)
"""


def _detection(running: mesh.Mesh) -> int:
    return int(json.loads((running.home / "processes.json").read_text())["detection"]["pid"])


def _bomb() -> bytes:
    """A PNG of a few bytes that claims 100,000 by 100,000 pixels."""
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    checksum = struct.pack(">I", zlib.crc32(b"IHDR" + header))
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", len(header)) + b"IHDR" + header + checksum


if __name__ == "__main__":
    main()
