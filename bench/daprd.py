"""Audit events through daprd and Redis at a steady rate: none lost, none twice in the log.

`python -m bench.daprd [--seconds 60] [--per-second 1000]` starts a mesh of its own, takes
the place of detection at its sidecar, and publishes events that detection's key signs, in
bulk as the services do. Then it waits until the log has them, and counts.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import secrets
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from bench import common
from facetmesh.cli.mesh.home import Home
from facetmesh.cli.mesh.layout import Layout, Sidecar
from facetmesh.cli.mesh.supervisor import Supervisor
from facetmesh.client import AsyncClient, Endpoints
from facetmesh.event.v1 import event_pb2
from facetmesh.kit.audit import EVENT_TYPE, TOPIC
from facetmesh.kit.dapr import DaprSidecar, Outgoing
from facetmesh.kit.eventids import new_event_id
from facetmesh.kit.signing import EventSigner

if TYPE_CHECKING:
    from collections.abc import Mapping

TENANT = "bench"
"""Whose the events are."""
_BATCHES_PER_S = 20
_SETTLE_S = 240.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the events."""

    published: int
    """Accepted by daprd."""
    refused: int
    """Not accepted, and not tried again."""
    publish_s: float
    """How long publishing took, in seconds."""
    behind_s: float
    """How much longer it took until the log had the last of them, in seconds."""
    lost: int
    """Accepted and not in the log."""
    twice: int
    """More than once in the log."""
    cpu_ms_each: Mapping[str, float]
    """What an event cost each process, in milliseconds of a core: the same however busy the machine is."""

    @property
    def published_per_s(self) -> float:
        """The rate that was reached."""
        return self.published / self.publish_s


async def measure(seconds: float, per_second: int) -> Outcome:
    """Runs it once.

    Args:
        seconds: How long to publish.
        per_second: How many events a second.
    """
    with tempfile.TemporaryDirectory(prefix="facetmesh-bench-") as folder:
        home = Home(Path(folder))
        async with Supervisor(home, 0, lambda _: None, Layout(Sidecar.DAPRD)) as mesh:
            admin = AsyncClient(home.admin_key.read_text().strip(), Endpoints.read(home.endpoints))
            async with admin:
                await admin.create_tenant(TENANT)
                return await _publish_and_count(home, mesh.pids, admin, seconds, per_second)


async def _publish_and_count(
    home: Home, pids: Mapping[str, int], admin: AsyncClient, seconds: float, per_second: int
) -> Outcome:
    told = psutil.Process(pids["detection"]).environ()
    sidecar = DaprSidecar(int(told["DAPR_GRPC_PORT"]), int(told["DAPR_HTTP_PORT"]), told["DAPR_API_TOKEN"])
    own = json.loads((home.secrets / "detection.json").read_text())
    signer = EventSigner("detection", base64.b64decode(own["event-signing-key"]))
    before = _cpu_s(pids)
    began = time.monotonic()
    accepted: set[str] = set()
    refused: list[str] = []
    for number in range(round(seconds * _BATCHES_PER_S)):
        await asyncio.sleep(max(0.0, began + number / _BATCHES_PER_S - time.monotonic()))
        batch = events(signer, per_second // _BATCHES_PER_S)
        failed = await sidecar.publisher().publish_many(TOPIC, batch, type=EVENT_TYPE)
        refused += failed
        accepted |= {event.id for event in batch} - set(failed)
    published = time.monotonic()
    await sidecar.close()
    behind_s, cpu_s = await _until_logged(admin, len(accepted), pids, published)
    logged = await _logged(admin, accepted)
    return Outcome(
        published=len(accepted), refused=len(refused), publish_s=published - began,
        behind_s=behind_s, lost=len(accepted - set(logged)),
        twice=sum(times > 1 for times in logged.values()),
        cpu_ms_each={name: (cpu_s[name] - before[name]) / len(accepted) * 1000 for name in pids},
    )  # fmt: skip


async def _until_logged(
    admin: AsyncClient, events: int, pids: Mapping[str, int], since: float
) -> tuple[float, Mapping[str, float]]:
    """How long it took until the log had all, and what the processes had used by then."""
    while True:
        size = int((await admin.checkpoint()).note.splitlines()[1])
        behind_s = time.monotonic() - since
        if size >= events or behind_s > _SETTLE_S:
            return behind_s, _cpu_s(pids)
        await asyncio.sleep(0.5)


async def _logged(admin: AsyncClient, expected: set[str]) -> Counter[str]:
    """How often each of the tenant's events is in the log. It has others too, so its size alone proves nothing."""
    deadline = time.monotonic() + _SETTLE_S
    while True:
        found = Counter(logged.event.id for logged in await admin.list_events(tenant=TENANT, limit=None))
        if set(found) >= expected or time.monotonic() > deadline:
            return found
        await asyncio.sleep(1)


def _cpu_s(pids: Mapping[str, int]) -> Mapping[str, float]:
    """What each process has used, in seconds of a core."""
    times = {name: psutil.Process(pid).cpu_times() for name, pid in pids.items()}
    return {name: used.user + used.system for name, used in times.items()}


def events(signer: EventSigner, count: int) -> list[Outgoing]:
    """Events of one bulk publish, made and signed as a service does it."""
    made = [_event(signer.service) for _ in range(count)]
    return [Outgoing(one.id, data, {}) for one, data in zip(made, signer.sign_many(made), strict=True)]


def _event(service: str) -> event_pb2.AuditEvent:
    made = event_pb2.AuditEvent(
        id=new_event_id(), service=service, method="facetmesh.detection.v1.DetectionService/Detect",
        tenant=f"tenants/{TENANT}", subject=f"tenants/{TENANT}/keys/k", resource=f"tenants/{TENANT}/models/m",
        outcome=event_pb2.AuditEvent.OUTCOME_OK, code="OK", content_salt=secrets.token_bytes(16),
        input_hashes=[secrets.token_bytes(32)], output_hash=secrets.token_bytes(32),
    )  # fmt: skip
    made.time.GetCurrentTime()
    return made


def main() -> None:
    """Measures, prints, and writes the results."""
    parser = argparse.ArgumentParser(prog="python -m bench.daprd")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--per-second", type=int, default=1000)
    given = parser.parse_args()
    busy = common.busy()
    with contextlib.suppress(KeyboardInterrupt):
        outcome = asyncio.run(measure(given.seconds, given.per_second))
        figures = {"per_second_wanted": given.per_second, **asdict(outcome)}
        path = common.write("daprd", common.Machine.here("dapr", "grpcio", "protobuf"), figures, busy=busy)
        sys.stdout.write(f"{json.dumps(figures, indent=2)}\n{path}\n")


if __name__ == "__main__":
    main()
