"""A tenant that asks at a steady rate, or at random, whether answers come or not: what it feels of others.

`python -m bench.steady JOB`, where JOB is a JSON object of `ask`'s arguments: a
process of its own, which prints what it found.
"""

from __future__ import annotations

import asyncio
import json
import random
import struct
import subprocess
import sys
import time
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from bench import common, inputs, mesh
from facetmesh.client import AsyncClient, Endpoints
from facetmesh.detection.v1 import detection_pb2, detection_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_PATIENCE_S = 30.0


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
        return {"ips": round(len(self.times_s) / seconds, 2), **quantiles(self.times_s), "errors": dict(self.errors)}


def quantiles(times_s: list[float]) -> dict[str, float | None]:
    """The 50th, 90th and 99th percentile, in milliseconds; None of nothing."""
    times = sorted(times_s)
    return {
        f"p{share}_ms": round(1000 * times[len(times) * share // 100], 1) if times else None for share in (50, 90, 99)
    }


def asking(
    running: mesh.Mesh, tenant: str, rate: float, seconds: float, *, at_random: bool = False, bombs: bool = False,
    aside: bool = False,
) -> subprocess.Popen[str]:
    """A process that asks on a tenant's behalf; it prints what `ask` returns."""
    job = {
        "home": str(running.home), "key": running.key(tenant), "rate": rate, "seconds": seconds,
        "at_random": at_random, "bombs": bombs, "aside": aside,
    }  # fmt: skip
    command = [sys.executable, "-m", "bench.steady", json.dumps(job)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


async def ask(
    home: str, key: str, rate: float, seconds: float, *, at_random: bool, bombs: bool, aside: bool
) -> dict[str, Any]:
    """Asks at a steady rate.

    Args:
        home: The mesh's state folder.
        key: The tenant's.
        rate: Calls a second.
        seconds: For how long.
        at_random: Makes the rate an average: calls come as they do from many callers, and meet those of a steady tenant
            at any moment. Two steady tenants would meet each time, or never.
        bombs: Makes every tenth image one that claims to be huge.
        aside: Leaves the cores to all others, as a client would that runs elsewhere.
    """
    if aside:
        common.stand_aside()
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
        # Not measured: a connection's first call, of which a short run would make its 99th percentile.
        await one(stub, good)
        times.clear()
        errors.clear()
        began = time.perf_counter()
        for number, moment in enumerate(_moments(rate, seconds, at_random=at_random)):
            await asyncio.sleep(max(0.0, began + moment - time.perf_counter()))
            calls.create_task(one(stub, bomb if bombs and number % 10 == 9 else good))  # noqa: PLR2004 - the tenth
    return {"times_s": times, "errors": dict(errors)}


def _moments(rate: float, seconds: float, *, at_random: bool) -> Iterator[float]:
    """When calls are made, in seconds from the beginning."""
    gap = (lambda: random.expovariate(rate)) if at_random else (lambda: 1 / rate)
    moment = gap() if at_random else 0.0
    while moment < seconds:
        yield moment
        moment += gap()


def _bomb() -> bytes:
    """A PNG of a few bytes that claims 100,000 by 100,000 pixels."""
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    checksum = struct.pack(">I", zlib.crc32(b"IHDR" + header))
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", len(header)) + b"IHDR" + header + checksum


if __name__ == "__main__":
    print(json.dumps(asyncio.run(ask(**json.loads(sys.argv[1])))))
