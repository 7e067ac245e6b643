"""The audit log: how many entries a second, how soon they are in it, and what they cost.

`python -m bench.audit` measures the log's core on SQLite and PostgreSQL beside Tessera's
POSIX log (Go must be installed, else that figure is left out), proofs in a log of ten
million entries, and a whole mesh on the embedded sidecar with either store.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from tests.unit.audit_postgres import postgres_server

from bench import common
from bench.daprd import TENANT, events
from facetmesh.audit.database import LogDatabase
from facetmesh.audit.merkle import WIDTH, Tree
from facetmesh.audit.postgres import PostgresConnection
from facetmesh.audit.records import Row
from facetmesh.audit.sqlite import SqliteConnection
from facetmesh.cli.mesh.home import Home
from facetmesh.cli.mesh.layout import Layout, Sidecar
from facetmesh.cli.mesh.supervisor import Supervisor
from facetmesh.client import AsyncClient, Endpoints
from facetmesh.kit.audit import EVENT_TYPE, TOPIC, Record, Recorder
from facetmesh.kit.dapr import DaprSidecar
from facetmesh.kit.eventids import new_event_id
from facetmesh.kit.signing import EventSigner
from facetmesh.kit.telemetry import Metrics
from facetmesh.verify.entry import entry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence

    from facetmesh.kit.dapr import Outgoing

_BATCH = 1000
_BODY_BYTES = 600
_TESSERA = Path(__file__).parents[1] / "tools" / "tessera"
_ADDERS = 2000
_SETTLE_S = 240.0


def rows(count: int) -> list[Row]:
    """Events as they come to the store: signed, sealed, of many tenants."""
    made = []
    for _ in range(count):
        body = secrets.token_bytes(_BODY_BYTES)
        made.append(Row(
            id=new_event_id(), tenant=f"tenant-{body[0] % 50}", time_us=time.time_ns() // 1000,
            digest=body[:32], entry=entry(body[:32], body), sealed=body,
        ))  # fmt: skip
    return made


def core(database: LogDatabase, count: int) -> tuple[float, float]:
    """Durable entries a second, appended in batches, each committed; and entries a second of this process's core."""
    batches = [rows(_BATCH) for _ in range(count // _BATCH)]
    began, used = time.perf_counter(), time.process_time()
    for batch in batches:
        database.append(batch)
    return count / (time.perf_counter() - began), count / (time.process_time() - used)


@contextmanager
def tessera(folder: Path) -> Iterator[Callable[[int], float] | None]:
    """What measures Tessera: how many entries a second it makes durable. None where Go is missing."""
    go = shutil.which("go")
    if go is None:
        yield None
        return
    binary = folder / "tessera"
    subprocess.run([go, "build", "-o", binary, "."], cwd=_TESSERA, check=True)

    def measured(count: int) -> float:
        with tempfile.TemporaryDirectory(dir=folder) as log:
            arguments = (f"{log}/log", count, 33, _ADDERS, _BATCH)
            done = subprocess.run(
                [binary, "measure", *map(str, arguments)], check=True, capture_output=True, text=True
            )
        return float(done.stdout)

    yield measured


def cores(folder: Path, count: int, rounds: int) -> dict[str, Any]:
    """The log's core on each store, and Tessera's, one after the other in each round."""
    found: dict[str, list[float]] = {"sqlite": [], "postgres": [], "tessera": []}
    used: dict[str, list[float]] = {"sqlite": [], "postgres": []}
    with postgres_server() as server, tessera(folder) as go:
        url = server.new_database()
        for number in range(rounds):
            file = folder / f"core-{number}.db"
            for name, connection in (("sqlite", SqliteConnection(file)), ("postgres", PostgresConnection(url))):
                rate, of_a_core = core(LogDatabase(connection), count)
                found[name].append(rate)
                used[name].append(of_a_core)
                connection.close()
            disk = sum(path.stat().st_size for path in folder.glob(f"{file.name}*"))
            if go is not None:
                found["tessera"].append(go(count))
    best = {f"{name}_entries_per_s": round(max(rates)) for name, rates in found.items() if rates}
    best |= {f"{name}_entries_per_core_s": round(max(rates)) for name, rates in used.items()}
    return {**best, "rounds": {name: [round(rate) for rate in rates] for name, rates in found.items()},
            "sqlite_disk_bytes_each": round(disk / count), "body_bytes": _BODY_BYTES}  # fmt: skip


def proofs(folder: Path, size: int, samples: int) -> dict[str, Any]:
    """How long a proof takes in a large log: its tiles are real, its leaves random."""
    connection = SqliteConnection(folder / "large.db")
    database = LogDatabase(connection)
    step = WIDTH * WIDTH
    for start in range(0, size, step):
        leaves = [secrets.token_bytes(32) for _ in range(min(step, size - start))]
        changed = Tree(database, start).extended(leaves)
        with connection.writing():
            database.put_tiles(changed)
    took: list[float] = []
    used: list[float] = []
    for number in range(samples):
        index = secrets.randbelow(size)
        began, used_before = time.perf_counter(), time.thread_time()
        if number % 2:
            database.tree(size).inclusion(index)
        else:
            database.tree(size).consistency(index + 1)
        took.append((time.perf_counter() - began) * 1000)
        used.append((time.thread_time() - used_before) * 1000)
    connection.close()
    # A core's time beside the clock's, because on a busy machine the latter says how busy it is.
    return {"proof_log_entries": size, "proof_p50_ms": _at(took, 50), "proof_p99_ms": _at(took, 99),
            "proof_cpu_p50_ms": _at(used, 50), "proof_cpu_p99_ms": _at(used, 99)}  # fmt: skip


class Publisher:
    """Detection's place at its sidecar."""

    def __init__(self, home: Home, pid: int) -> None:
        told = psutil.Process(pid).environ()
        self.sidecar = DaprSidecar(int(told["DAPR_GRPC_PORT"]), int(told["DAPR_HTTP_PORT"]), told["DAPR_API_TOKEN"])
        own = json.loads((home.secrets / "detection.json").read_text())
        self.signer = EventSigner("detection", base64.b64decode(own["event-signing-key"]))

    async def publish(self, events: Sequence[Outgoing]) -> None:
        """Publishes events in bulk."""
        failed = await self.sidecar.publisher().publish_many(TOPIC, events, type=EVENT_TYPE)
        if failed:
            raise RuntimeError(f"{len(failed)} events were not accepted")


@asynccontextmanager
async def mesh() -> AsyncIterator[tuple[AsyncClient, Publisher, Mapping[str, int]]]:
    """A mesh of its own on the embedded sidecar."""
    with tempfile.TemporaryDirectory(prefix="facetmesh-bench-") as folder:
        home = Home(Path(folder))
        async with Supervisor(home, 0, lambda _: None, Layout(Sidecar.EMBEDDED)) as running, _admin(home) as admin:
            await admin.create_tenant(TENANT)
            yield admin, Publisher(home, running.pids["detection"]), running.pids


def _admin(home: Home) -> AsyncClient:
    return AsyncClient(home.admin_key.read_text().strip(), Endpoints.read(home.endpoints))


async def through(name: str, count: int) -> dict[str, Any]:
    """Events a second from the first publish to the checkpoint that has the last, and what one costs each process."""
    async with mesh() as (admin, publisher, pids):
        batches = [events(publisher.signer, 256) for _ in range(count // 256)]
        before, used = await _size(admin), _cpu_s(pids)
        began = time.perf_counter()
        for start in range(0, len(batches), 4):
            await asyncio.gather(*map(publisher.publish, batches[start : start + 4]))
        while await _size(admin) < before + 256 * len(batches):
            if time.perf_counter() - began > _SETTLE_S:
                raise TimeoutError("the log did not get them all")
            await asyncio.sleep(0.05)
        took = time.perf_counter() - began
        await publisher.sidecar.close()
        total = 256 * len(batches)
        cpu = {one: round((now - used[one]) / total * 1000, 3) for one, now in _cpu_s(pids).items()}
        return {f"{name}_events_per_s": round(total / took), f"{name}_cpu_ms_each": cpu}


def _cpu_s(pids: Mapping[str, int]) -> dict[str, float]:
    """What the sidecar, audit and this process, which publishes, have used, in seconds of a core."""
    asked = {"sidecar": pids["sidecar"], "audit": pids["audit"], "publisher": os.getpid()}
    times = {name: psutil.Process(pid).cpu_times() for name, pid in asked.items()}
    return {name: one.user + one.system for name, one in times.items()}


async def latencies(seconds: float, per_second: int) -> dict[str, Any]:
    """How soon after its acknowledgement an event is in the log, and what waiting for that adds to a call."""
    async with mesh() as (admin, publisher, _):
        accepted: dict[str, float] = {}
        arrived: dict[str, float] = {}

        async def watch() -> None:
            async for logged in admin.watch_events(tenant=TENANT):
                arrived[logged.event.id] = time.perf_counter()

        watching = asyncio.create_task(watch())
        began = time.perf_counter()
        for number in range(round(seconds * 20)):
            await asyncio.sleep(max(0.0, began + number / 20 - time.perf_counter()))
            batch = events(publisher.signer, per_second // 20)
            await publisher.publish(batch)
            accepted.update(dict.fromkeys([one.id for one in batch], time.perf_counter()))
        deadline = time.perf_counter() + _SETTLE_S
        while len(arrived.keys() & accepted.keys()) < len(accepted) - per_second // 10:
            if time.perf_counter() > deadline:
                raise TimeoutError("the log did not get them all")
            await asyncio.sleep(0.05)
        watching.cancel()
        waits = [arrived[one] - accepted[one] for one in accepted if one in arrived]
        hot = await _hot_path(publisher)
        await publisher.sidecar.close()
    return {"inclusion_rate_per_s": per_second, "inclusion_p50_s": _at(waits, 50), "inclusion_p99_s": _at(waits, 99),
            **hot}  # fmt: skip


async def _hot_path(publisher: Publisher, samples: int = 400) -> dict[str, Any]:
    """A required event beside one bare publish, turn by turn, and between them a bulk publish of one that was ready."""
    sender = publisher.sidecar.publisher()
    recorder = Recorder("bench", publisher.signer, sender, Metrics.create())

    async def bare() -> None:
        (one,) = ready
        await sender.publish(TOPIC, one.data, event_id=one.id, type=EVENT_TYPE)

    async def bulk() -> None:
        await publisher.publish(ready)

    async def required() -> None:
        await recorder.accept(Record("facetmesh.detection.v1.DetectionService/Detect", tenant=f"tenants/{TENANT}"))

    took: dict[str, list[float]] = {"bare_publish": [], "bulk_publish": [], "required": []}
    for _ in range(samples):
        for name, way in zip(took, (bare, bulk, required), strict=True):
            ready = events(publisher.signer, 1)
            began = time.perf_counter()
            await way()
            took[name].append((time.perf_counter() - began) * 1000)
    await recorder.close()
    medians = {name: statistics.median(times) for name, times in took.items()}
    return {"hot_path_p50_ms": round(medians["required"] - medians["bare_publish"], 3),
            **{f"{name}_p50_ms": round(median, 4) for name, median in medians.items()}}  # fmt: skip


async def _size(admin: AsyncClient) -> int:
    return int((await admin.checkpoint()).note.splitlines()[1])


def _at(values: Sequence[float], percent: int) -> float:
    return round(sorted(values)[min(len(values) - 1, len(values) * percent // 100)], 4)


def run(given: argparse.Namespace) -> dict[str, Any]:
    """All figures."""
    with tempfile.TemporaryDirectory(prefix="facetmesh-bench-") as scratch:
        folder = Path(scratch)
        figures = cores(folder, given.entries, given.rounds)
        figures |= proofs(folder, given.log_size, 2000)
    figures |= asyncio.run(through("sqlite", given.events))
    figures |= asyncio.run(latencies(given.seconds, 200))
    with postgres_server() as server:
        os.environ["FACETMESH_LOG_URL"] = server.new_database()
        figures |= asyncio.run(through("postgres", given.events))
    return figures


def main() -> None:
    """Measures, prints, and writes the results."""
    parser = argparse.ArgumentParser(prog="python -m bench.audit")
    parser.add_argument("--entries", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--log-size", type=int, default=10_000_000)
    parser.add_argument("--events", type=int, default=20_480)
    parser.add_argument("--seconds", type=float, default=20)
    given = parser.parse_args()
    busy = common.busy()
    figures = run(given)
    packages = ("cryptography", "dapr", "grpcio", "psycopg", "protobuf")
    path = common.write("audit", common.Machine.here(*packages), figures, busy=busy or common.busy())
    sys.stdout.write(f"{json.dumps(figures, indent=2)}\n{path}\n")


if __name__ == "__main__":
    main()
