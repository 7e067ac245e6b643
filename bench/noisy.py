"""The noisy neighbour: what a tenant feels of another that behaves badly.

Tenant a asks at a steady rate, and so does tenant b. Then b floods at twenty times
that rate, sends images that claim to be huge, and its runner is killed again and
again. `python -m bench.noisy [--seconds S] [--rate R]`; results go to
results/noisy.json.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import psutil

from bench import common, inputs, mesh
from facetmesh.client import AsyncClient, Endpoints
from facetmesh.detection.v1 import detection_pb2, detection_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Iterator

FLOOD = 20
"""How many times its share the neighbour asks for."""
_KILL_EVERY_S = 0.5
_PATIENCE_S = 30.0


def main() -> None:
    """Measures, and writes the results; with a tenant's name, asks on its behalf."""
    if sys.argv[1:2] == ["ask"]:
        print(json.dumps(asyncio.run(ask(**json.loads(sys.argv[2])))))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="how long each case is measured")
    parser.add_argument("--rate", type=float, default=8.0, help="images a second that each tenant's share is")
    options = parser.parse_args()
    busy = common.noisy()
    figures = measure(options.seconds, options.rate)
    print(json.dumps(figures, indent=2))
    machine = common.Machine.here("openvino", "grpcio", "facetmesh")
    print(common.write("noisy", machine, figures, noisy=busy or common.noisy()))


def measure(seconds: float, rate: float) -> dict[str, Any]:
    """Both cases, on one mesh.

    Returns:
        `p99_ratio`, `throughput_ratio` and `errors` of tenant a, beside what
        was measured of both tenants in each case.
    """
    with tempfile.TemporaryDirectory() as folder, mesh.running(Path(folder) / "home") as running:
        for tenant in ("a", "b"):
            running.key(f"tenant-{tenant}")
        _both(running, 3.0, rate, rate)  # warm
        quiet = _both(running, seconds, rate, rate)
        with _killing(running):
            noisy = _both(running, seconds, rate, FLOOD * rate)
    return {
        "p99_ratio": round(noisy["a"]["p99_ms"] / quiet["a"]["p99_ms"], 2),
        "throughput_ratio": round(noisy["a"]["ips"] / quiet["a"]["ips"], 3),
        "errors": sum(noisy["a"]["errors"].values()),
        "seconds": seconds,
        "rate": rate,
        "flood": FLOOD,
        "quiet": quiet,
        "noisy": noisy,
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
    times.sort()
    return {
        "ips": round(len(times) / seconds, 2),
        "p50_ms": round(1000 * times[len(times) // 2], 1) if times else None,
        "p99_ms": round(1000 * times[int(len(times) * 0.99)], 1) if times else None,
        "errors": dict(errors),
    }


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
def _killing(running: mesh.Mesh) -> Iterator[None]:
    """Kills the neighbour's runner again and again, as a model would that crashes it."""
    spared = _runner(running, "tenant-a")
    child = subprocess.Popen([sys.executable, "-c", _KILLER, str(spared), str(_detection(running)), str(_KILL_EVERY_S)])
    try:
        yield
    finally:
        child.send_signal(signal.SIGTERM)
        child.wait()


_KILLER = """
import os, sys, time
import psutil
spared, service, every = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
while True:
    for child in psutil.Process(service).children():
        try:
            if child.pid != spared and "facetmesh.runners.worker" in " ".join(child.cmdline()):
                child.kill()
        except psutil.Error:
            pass  # it was gone already
    time.sleep(every)
"""


def _detection(running: mesh.Mesh) -> int:
    return int(json.loads((running.home / "processes.json").read_text())["detection"]["pid"])


def _runner(running: mesh.Mesh, tenant: str) -> int:
    """The tenant's runner: the log says so when it starts one."""
    lines = map(json.loads, (running.home / "logs" / "detection.jsonl").read_text().splitlines())
    pids = [line["runner_pid"] for line in lines if line.get("domain") == tenant and "runner_pid" in line]
    if not pids or not psutil.pid_exists(pids[-1]):
        raise SystemExit(f"{tenant} has no runner")
    return int(pids[-1])


def _bomb() -> bytes:
    """A PNG of a few bytes that claims 100,000 by 100,000 pixels."""
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    checksum = struct.pack(">I", zlib.crc32(b"IHDR" + header))
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", len(header)) + b"IHDR" + header + checksum


if __name__ == "__main__":
    main()
