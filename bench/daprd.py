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

import psutil

from bench import common
from facetmesh.cli.mesh.home import Home
from facetmesh.cli.mesh.layout import Layout, Sidecar
from facetmesh.cli.mesh.supervisor import Supervisor
from facetmesh.client import AsyncClient, Endpoints
from facetmesh.event.v1 import event_pb2
from facetmesh.kit.audit import EVENT_TYPE, TOPIC
from facetmesh.kit.dapr import DaprSidecar, Outgoing
from facetmesh.kit.signing import EventSigner

_TENANT = "bench"
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
                await admin.create_tenant(_TENANT)
                return await _publish_and_count(home, mesh.pids["detection"], admin, seconds, per_second)


async def _publish_and_count(
    home: Home, detection_pid: int, admin: AsyncClient, seconds: float, per_second: int
) -> Outcome:
    told = psutil.Process(detection_pid).environ()
    sidecar = DaprSidecar(int(told["DAPR_GRPC_PORT"]), int(told["DAPR_HTTP_PORT"]), told["DAPR_API_TOKEN"])
    own = json.loads((home.secrets / "detection.json").read_text())
    signer = EventSigner("detection", base64.b64decode(own["event-signing-key"]))
    began = time.monotonic()
    accepted: set[str] = set()
    refused: list[str] = []
    for number in range(round(seconds * _BATCHES_PER_S)):
        await asyncio.sleep(max(0.0, began + number / _BATCHES_PER_S - time.monotonic()))
        batch = [_event(signer) for _ in range(per_second // _BATCHES_PER_S)]
        failed = await sidecar.publisher().publish_many(TOPIC, batch, type=EVENT_TYPE)
        refused += failed
        accepted |= {event.id for event in batch} - set(failed)
    published = time.monotonic()
    await sidecar.close()
    logged = await _logged(admin, accepted)
    return Outcome(
        published=len(accepted), refused=len(refused), publish_s=published - began,
        behind_s=time.monotonic() - published, lost=len(accepted - set(logged)),
        twice=sum(times > 1 for times in logged.values()),
    )  # fmt: skip


async def _logged(admin: AsyncClient, expected: set[str]) -> Counter[str]:
    """How often each of this tenant's events is in the log, once all are there or the time is over."""
    deadline = time.monotonic() + _SETTLE_S
    while True:
        size = int((await admin.checkpoint()).note.splitlines()[1])
        if size >= len(expected) or time.monotonic() > deadline:
            found = Counter(logged.event.id for logged in await admin.list_events(tenant=_TENANT, limit=None))
            if set(found) >= expected or time.monotonic() > deadline:
                return found
        await asyncio.sleep(0.5)


def _event(signer: EventSigner) -> Outgoing:
    event = event_pb2.AuditEvent(
        id=secrets.token_hex(16), service=signer.service, method="facetmesh.detection.v1.DetectionService/Detect",
        tenant=f"tenants/{_TENANT}", subject=f"tenants/{_TENANT}/keys/k", resource=f"tenants/{_TENANT}/models/m",
        outcome=event_pb2.AuditEvent.OUTCOME_OK, code="OK", content_salt=secrets.token_bytes(16),
        input_hashes=[secrets.token_bytes(32)], output_hash=secrets.token_bytes(32),
    )  # fmt: skip
    event.time.GetCurrentTime()
    return Outgoing(event.id, signer.sign(event), {})


def main() -> None:
    """Measures, prints, and writes the results."""
    parser = argparse.ArgumentParser(prog="python -m bench.daprd")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--per-second", type=int, default=1000)
    given = parser.parse_args()
    busy = common.noisy()
    with contextlib.suppress(KeyboardInterrupt):
        outcome = asyncio.run(measure(given.seconds, given.per_second))
        figures = {"per_second_wanted": given.per_second, **asdict(outcome)}
        path = common.write("daprd", common.Machine.here("dapr", "grpcio", "protobuf"), figures, noisy=busy)
        sys.stdout.write(f"{json.dumps(figures, indent=2)}\n{path}\n")


if __name__ == "__main__":
    main()
