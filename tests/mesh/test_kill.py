"""kill -9 of each process in turn, in the middle of the job.

What had been acknowledged before is there afterwards: tenants, keys, models, the
fusion that was running, the receipts. The supervisor replaces what died; when it
is the supervisor itself, the next `up` goes on.
"""

from __future__ import annotations

import hashlib
import os
import signal
from typing import TYPE_CHECKING

import numpy as np
import psutil
import pytest
from tests.unit import onnx_models

from facetmesh.client import NotFound, Unauthenticated
from facetmesh.verify import open_checkpoint, verify_growth, verify_receipt

from .conftest import Collector, Mesh, running
from .rig import consented, none_left, patiently, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def mortal(
    tmp_path_factory: pytest.TempPathFactory, collector: Collector, assets: dict[str, Path]
) -> Iterator[Mesh]:
    """A mesh of this module's own."""
    assert assets
    with running(tmp_path_factory.mktemp("mortal") / "home", collector) as made:
        yield made


@pytest.fixture(scope="module")
def mortal_on_daprd(
    tmp_path_factory: pytest.TempPathFactory, collector: Collector, assets: dict[str, Path]
) -> Iterator[Mesh]:
    """The same on daprd."""
    assert assets
    with running(tmp_path_factory.mktemp("mortal") / "home", collector, "--sidecar=daprd") as made:
        yield made


def runner_of(mesh: Mesh, service: str) -> int:
    """The runner process of a service."""
    children = psutil.Process(mesh.pid(service)).children()
    return next(child.pid for child in children if "facetmesh.runners.worker" in " ".join(child.cmdline()))


def killed(mesh: Mesh, victim: str) -> Callable[[], object]:
    """Kills the victim at once; returns what tells whether it is back."""
    if victim.endswith("runner"):
        pid = runner_of(mesh, victim.partition(" ")[0])
        os.kill(pid, signal.SIGKILL)
        return lambda: not psutil.pid_exists(pid)
    pid = mesh.pid(victim)
    os.kill(pid, signal.SIGKILL)
    return lambda: mesh.has_replaced(victim, pid)


@pytest.mark.parametrize(
    "victim",
    [
        "detection runner", "fusion runner", "auth", "detection", "audit",
        pytest.param("sidecar", marks=pytest.mark.full), pytest.param("fusion", marks=pytest.mark.full),
    ],
)  # fmt: skip
def test_what_was_acknowledged_survives(mortal: Mesh, group: bytes, astronaut: bytes, victim: str) -> None:
    _kill_in_the_middle(mortal, group, astronaut, victim)


def test_an_upload_goes_on_after_detection_was_killed(mortal: Mesh) -> None:
    """And leaves nothing on the way."""
    metadata = {"names": "{0: 'cat', 1: 'dog'}", "of no use": "x" * 20_000_000}
    file = onnx_models.giving({"output0": np.zeros((1, 6, 8))}, metadata=metadata)
    comes_back: list[Callable[[], object]] = []

    def kill_in_the_middle(sent_bytes: int) -> None:
        if sent_bytes > len(file) / 2 and not comes_back:
            comes_back.append(killed(mortal, "detection"))

    with mortal.client(mortal.tenant("acme")) as client:
        version = client.upload_model("large", file, licence="MIT", progress=kill_in_the_middle)
    assert comes_back
    assert comes_back[0]()
    assert (version.sha256, version.size_bytes) == (hashlib.sha256(file).hexdigest(), len(file))
    assert not list(mortal.home.rglob("uploads/*/*"))


@pytest.mark.full
@pytest.mark.parametrize("victim", ["daprd-audit", "redis"])
def test_what_was_acknowledged_survives_on_daprd(
    mortal_on_daprd: Mesh, group: bytes, astronaut: bytes, victim: str
) -> None:
    _kill_in_the_middle(mortal_on_daprd, group, astronaut, victim)


def _kill_in_the_middle(mortal: Mesh, group: bytes, astronaut: bytes, victim: str) -> None:
    key = mortal.tenant("acme")
    log_key = (mortal.home / "log.vkey").read_text().strip()
    with mortal.client(key) as client:
        client.fuse(astronaut, group, face_model="faces", consent=consented(client, astronaut))  # both runners are up
        old = open_checkpoint(client.checkpoint().note, log_key)
        receipts = [client.detect("faces", group).receipt for _ in range(5)]
        operation = client.create_fusion(astronaut, group, face_model="faces", consent=consented(client, astronaut))
        before = mortal.pids()
        back = killed(mortal, victim)
        made = patiently(lambda: client.wait_fusion(operation.name))
        content = patiently(lambda: client.download_fusion(made.name))
        assert len(content) == made.size_bytes
        for name in [*receipts, made.receipt]:
            receipt = patiently(lambda name=name: client.receipt(name, wait_s=20), also=(NotFound,))
            assert verify_receipt(receipt, log_key).tenant == "tenants/acme"
        until(back, f"{victim} is back")
        started = {name for name, pid in mortal.pids().items() if before[name] != pid}
        assert started <= {victim}, "nothing else was started anew"
        patiently(lambda: client.detect("faces", group))
        assert [model.name for model in patiently(client.list_models)] == ["tenants/acme/models/faces"]
        new = open_checkpoint(patiently(client.checkpoint).note, log_key)
        verify_growth(old, new, patiently(lambda: client.consistency_proof(old.size, new.size)).hashes)
    with mortal.client(mortal.admin_key) as admin:
        assert "tenants/acme" in [tenant.name for tenant in patiently(admin.list_tenants, also=(Unauthenticated,))]
        events = patiently(lambda: admin.list_events(tenant="-", limit=1000))
    ids = [one.event.id for one in events]
    assert len(ids) == len(set(ids))


@pytest.mark.full
def test_after_the_supervisor_the_next_up_goes_on(
    tmp_path: Path, collector: Collector, group: bytes, astronaut: bytes
) -> None:
    home = tmp_path / "home"
    with running(home, collector) as mesh:
        key = mesh.tenant("acme")
        with mesh.client(key) as client:
            receipt = client.detect("faces", group).receipt
            operation = client.create_fusion(astronaut, group, face_model="faces", consent=consented(client, astronaut))
        family = mesh.family()
        mesh.process.kill()
        mesh.process.wait()
        until(lambda: none_left(family), "all have ended with the supervisor")
        (home / "endpoints.json").unlink()
    with running(home, collector) as mesh, mesh.client(key) as client:
        log_key = (home / "log.vkey").read_text().strip()
        found = patiently(lambda: client.receipt(receipt, wait_s=20), also=(NotFound,))
        assert verify_receipt(found, log_key).tenant == "tenants/acme"
        made = patiently(lambda: client.wait_fusion(operation.name), also=(NotFound,))
        assert patiently(lambda: client.download_fusion(made.name))
