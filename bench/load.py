"""Clients: so many at a time, each asking again as soon as it has its answer.

`python -m bench.load JOB`, where JOB is a JSON object: `kind` (facetmesh, http, v2 or
photo), `address`, `clients`, `seconds`, and what the kind needs. A process of its
own, the same for all servers but for the protocol; it prints images a second,
percentiles and the processor time of an image in milliseconds as JSON: the
client's and, where the job has the server's `pid`, that of all its processes.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import grpc

from bench import cpu, inputs
from facetmesh.client import AsyncClient, Endpoints
from facetmesh.detection.v1 import detection_pb2, detection_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    Ask = Callable[[], Awaitable[object]]

_WARM_UP = 8
_WARM_UP_S = 1.0
"""How long all clients ask before it counts: what servers make when calls first come side by side is made then."""
_PATIENCE_S = 60.0
_AGAIN_S = 0.2
_OPTIONS = [("grpc.max_receive_message_length", 64 << 20)]
_MODEL_INFER = "/inference.GRPCInferenceService/ModelInfer"


def main() -> None:
    """Runs a job, and prints what was measured."""
    print(json.dumps(asyncio.run(run(json.loads(sys.argv[1])))))


async def run(job: Mapping[str, Any]) -> dict[str, float]:
    """Runs a job."""
    async with _KINDS[job["kind"]](job) as ask:
        first_s = await _warm_up(ask)
        await _clients(ask, job["clients"], _WARM_UP_S)
        spent, began = _spent(job), time.perf_counter()
        times = await _clients(ask, job["clients"], job["seconds"])
        seconds = time.perf_counter() - began
        spent = _spent(job) - spent
    times.sort()
    return {
        "ips": round(len(times) / seconds, 1),
        "p50_ms": round(times[len(times) // 2] * 1000, 2),
        "p99_ms": round(times[int(len(times) * 0.99)] * 1000, 2),
        "cpu_ms": round(1000 * spent / len(times), 2),
        "first_ms": round(first_s * 1000, 1),
    }


async def _clients(ask: Ask, count: int, seconds: float) -> list[float]:
    """So many clients for so long; returns how long each call took."""
    times: list[float] = []
    until = time.perf_counter() + seconds

    async def client() -> None:
        while (asked := time.perf_counter()) < until:
            await ask()
            times.append(time.perf_counter() - asked)

    await asyncio.gather(*(client() for _ in range(count)))
    return times


def _spent(job: Mapping[str, Any]) -> float:
    """Processor time of the client and of the server, in seconds."""
    return time.process_time() + (cpu.tree_seconds(job["pid"]) if "pid" in job else 0.0)


async def _warm_up(ask: Ask) -> float:
    """Asks until answers come at once; returns how long the first one took. A port may be open before its model is."""
    began = time.monotonic()
    until = began + _PATIENCE_S
    for number in range(_WARM_UP):
        if number == 1:
            first_s = time.monotonic() - began
        while True:
            try:
                await ask()
                break
            except (grpc.aio.AioRpcError, aiohttp.ClientError):
                if time.monotonic() > until:
                    raise
                await asyncio.sleep(_AGAIN_S)
    return first_s


@asynccontextmanager
async def _facetmesh(job: Mapping[str, Any]) -> AsyncIterator[Ask]:
    """A key's token, checked in each call; the answers come after their audit events were accepted."""
    file = Path(job["home"]) / "endpoints.json"
    endpoints = Endpoints.read(file)
    address = json.loads(file.read_text())[job["through"]]
    async with AsyncClient(job["key"], endpoints) as client:
        token = await client.token()
    request = detection_pb2.DetectRequest(model=f"{token.tenant}/models/{job['model']}", image=_photo())
    metadata = (("authorization", f"Bearer {token.access_token}"),)
    async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:
        stub = detection_pb2_grpc.DetectionServiceStub(channel)
        yield lambda: stub.Detect(request, metadata=metadata, timeout=_PATIENCE_S)


@asynccontextmanager
async def _http(job: Mapping[str, Any]) -> AsyncIterator[Ask]:
    """The JPEG as the body of a POST, or as a field of a form, over connections that stay."""
    photo = _photo()

    def body() -> tuple[Any, dict[str, str]]:
        if not job["field"]:
            return photo, {"content-type": "application/octet-stream"}
        form = aiohttp.FormData()
        form.add_field(job["field"], photo, filename="photo.jpg", content_type="image/jpeg")
        return form, {}

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def ask() -> None:
            data, headers = body()
            async with session.post(job["address"], data=data, headers=headers) as answer:
                await answer.read()
                answer.raise_for_status()

        yield ask


@asynccontextmanager
async def _v2(job: Mapping[str, Any]) -> AsyncIterator[Ask]:
    """KServe's V2 protocol over gRPC: the request was serialized by the peer's own classes."""
    request = await asyncio.to_thread(Path(job["request"]).read_bytes)
    async with grpc.aio.insecure_channel(job["address"], options=_OPTIONS) as channel:
        call = channel.unary_unary(_MODEL_INFER)
        yield lambda: call(request, timeout=_PATIENCE_S)


@asynccontextmanager
async def _message(job: Mapping[str, Any]) -> AsyncIterator[Ask]:
    """The JPEG alone as a gRPC message."""
    photo = _photo()
    async with grpc.aio.insecure_channel(job["address"], options=_OPTIONS) as channel:
        call = channel.unary_unary("/bench.Floor/Detect")
        yield lambda: call(photo, timeout=_PATIENCE_S)


def _photo() -> bytes:
    return inputs.photo().read_bytes()


_KINDS: Mapping[str, Any] = {"facetmesh": _facetmesh, "http": _http, "v2": _v2, "photo": _message}

if __name__ == "__main__":
    main()
