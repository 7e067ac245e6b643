"""A mesh for measuring: a state folder of its own, free ports, tenants with the model."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

from bench import inputs
from facetmesh.client import ROLE_AUDITOR, ROLE_CALLER, ROLE_TENANT_ADMIN, AsyncClient, Endpoints

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from prometheus_client.samples import Sample

MODEL = "faces"
_START_S = 120
_STOP_S = 60


@dataclass(frozen=True, slots=True)
class Mesh:
    """A mesh that is up."""

    home: Path
    process: subprocess.Popen[bytes]

    @property
    def endpoints(self) -> Endpoints:
        """Where its services are."""
        return Endpoints.read(self.home / "endpoints.json")

    def key(self, tenant: str) -> str:
        """A key of the tenant, which is made with its model at the first time."""
        kept = self.home / f"{tenant}.key"
        if not kept.exists():
            kept.write_text(asyncio.run(self._tenant(tenant)))
        return kept.read_text()

    def job(self, tenant: str, clients: int, seconds: float, *, through: str = "detection") -> dict[str, object]:
        """A job for `load`, through one of the addresses in endpoints.json."""
        return {
            "kind": "facetmesh", "pid": self.process.pid, "home": str(self.home), "key": self.key(tenant),
            "model": MODEL, "clients": clients, "seconds": seconds, "through": through,
        }  # fmt: skip

    def stages(self) -> dict[str, tuple[float, float]]:
        """Of each stage of detection's requests so far: seconds together, and how many."""
        samples = {
            (sample.name.rpartition("_")[2], sample.labels["stage"]): sample.value
            for sample in self.samples()
            if sample.name in {"facetmesh_stage_seconds_sum", "facetmesh_stage_seconds_count"}
        }
        return {stage: (samples["sum", stage], samples["count", stage]) for kind, stage in samples if kind == "sum"}

    def total(self, name: str) -> float:
        """The sum of one of detection's metrics over its labels."""
        return sum(sample.value for sample in self.samples() if sample.name == name)

    def samples(self) -> list[Sample]:
        """Detection's metrics."""
        log = (self.home / "logs" / "detection.jsonl").read_text()
        said = [line for line in log.splitlines() if '"metrics_port"' in line][-1]  # by the one that runs now
        with urllib.request.urlopen(f"http://127.0.0.1:{json.loads(said)['metrics_port']}/metrics") as answer:
            text = answer.read().decode()
        return [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    def pid(self, service: str) -> int:
        """The process id of a service."""
        return int(json.loads((self.home / "processes.json").read_text())[service]["pid"])

    async def _tenant(self, tenant: str) -> str:
        async with AsyncClient((self.home / "admin.key").read_text().strip(), self.endpoints) as admin:
            await admin.create_tenant(tenant, licence_classes=("permissive", "copyleft"))
            roles = (ROLE_TENANT_ADMIN, ROLE_CALLER, ROLE_AUDITOR)
            secret = (await admin.create_key(tenant=tenant, roles=roles)).secret
        async with AsyncClient(secret, self.endpoints) as client:
            await client.create_model(MODEL, catalog_id=inputs.MODEL, accept_licence=inputs.LICENCE)
        return secret


@contextmanager
def running(
    home: Path, *, options: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> Iterator[Mesh]:
    """A mesh, until the context ends.

    Args:
        home: Its state folder; one that was used before is used again.
        options: Further arguments of `facetmesh up`.
        environment: Further variables for it.
    """
    where = home / "endpoints.json"
    where.unlink(missing_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "facetmesh.cli", "up", "--port-base", "0", *options],
        env={**os.environ, **(environment or {}), "FACETMESH_HOME": str(home)}, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        until = time.monotonic() + _START_S
        while not where.exists():
            if process.poll() is not None or time.monotonic() > until:
                raise SystemExit("the mesh did not start")
            time.sleep(0.1)
        yield Mesh(home, process)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(_STOP_S)
