"""Destroy everything, and bring it back: a backup is taken under load, the mesh is killed and its folder deleted.

What had been acknowledged when the backup began is there afterwards: tenants, keys, models, fusions with their
pictures, the fusion that was at work, and every receipt.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

import psutil
import pytest

from facetmesh.cli.mesh.home import Home
from facetmesh.client import FacetmeshError, NotFound
from facetmesh.verify import open_checkpoint, verify_growth, verify_receipt

from .conftest import Collector, Mesh, running
from .rig import DEADLINE_S, Cli, consented, none_left, patiently, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from facetmesh.client import Client

pytestmark = pytest.mark.full


@dataclass
class Load:
    """Works until it is told to stop, or everything is gone."""

    mesh: Mesh
    key: str
    source: bytes
    target: bytes
    receipts: list[tuple[float, str]] = field(default_factory=list)
    """When each was acknowledged, in seconds since the epoch, and its name."""
    fusions: list[tuple[float, str]] = field(default_factory=list)
    """When each was accepted, and the operation's name."""
    refusals: list[str] = field(default_factory=list)
    """What went wrong, until all was gone."""

    @contextmanager
    def running(self) -> Iterator[None]:
        stopping = threading.Event()
        kinds = (self._detect, self._detect, self._fuse)
        workers = [threading.Thread(target=self._work, args=[kind, stopping]) for kind in kinds]
        for worker in workers:
            worker.start()
        try:
            yield
        finally:
            stopping.set()
            for worker in workers:
                worker.join(2 * DEADLINE_S)
        assert not any(worker.is_alive() for worker in workers)

    def _work(self, do: Callable[[Client], None], stopping: threading.Event) -> None:
        with self.mesh.client(self.key) as client:
            while not stopping.is_set():
                try:
                    do(client)
                except FacetmeshError as error:
                    self.refusals.append(f"{error.code} {error.reason}: {error.message}")
                    stopping.wait(0.1)

    def _detect(self, client: Client) -> None:
        name = client.detect("faces", self.target).receipt
        self.receipts.append((time.time(), name))

    def _fuse(self, client: Client) -> None:
        operation = client.create_fusion(
            self.source, self.target, face_model="faces", consent=consented(client, self.source)
        )
        self.fusions.append((time.time(), operation.name))
        client.wait_fusion(operation.name)


@pytest.fixture
def passphrase(tmp_path: Path) -> Path:
    file = tmp_path / "passphrase"
    file.write_text("correct horse battery staple\n")
    file.chmod(0o600)
    return file


def destroy(mesh: Mesh) -> None:
    """As a machine dies: at once, and its disk with it."""
    mesh.process.send_signal(signal.SIGSTOP)  # so that it starts nothing anew
    family = mesh.family()
    for process in family:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    mesh.process.kill()
    mesh.process.wait()
    until(lambda: none_left(family), "nothing runs any more")

    def gone() -> bool:
        shutil.rmtree(mesh.home, ignore_errors=True)  # what a runner was about to start may still write
        return not mesh.home.exists()

    until(gone, "its folder is deleted")


def check(mesh: Mesh, load: Load, until_s: float, note: str) -> None:
    """What was acknowledged before a moment is there."""
    log_key = (mesh.home / "log.vkey").read_text().strip()
    receipts = [name for at, name in load.receipts if at < until_s]
    fusions = [name for at, name in load.fusions if at < until_s]
    assert receipts
    assert fusions
    with mesh.client(load.key) as client:
        for name in fusions:
            made = patiently(partial(client.wait_fusion, name))
            assert len(patiently(partial(client.download_fusion, made.name))) == made.size_bytes
            receipts.append(made.receipt)
        for name in receipts:
            # What daprd had in hand when the backup was taken comes again after a minute (processingTimeout).
            receipt = patiently(partial(client.receipt, name, wait_s=20), also=(NotFound,))
            assert verify_receipt(receipt, log_key).tenant == "tenants/acme"
        assert patiently(lambda: client.detect("faces", load.target)).detections
        old, new = open_checkpoint(note, log_key), open_checkpoint(client.checkpoint().note, log_key)
        verify_growth(old, new, client.consistency_proof(old.size, new.size).hashes)
        ids = [one.event.id for one in patiently(lambda: client.list_events(limit=10_000))]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("sidecar", ["embedded", "daprd"])
def test_everything_is_destroyed_and_comes_back(
    tmp_path: Path, collector: Collector, group: bytes, astronaut: bytes, passphrase: Path, sidecar: str,
) -> None:
    home, backup = tmp_path / "home", tmp_path / "backup.tar"
    cli = Cli(Home(home))
    with running(home, collector, "--sidecar", sidecar) as mesh:
        load = Load(mesh, mesh.tenant("acme"), astronaut, group)
        with load.running():
            until(lambda: len(load.receipts) > 10 and len(load.fusions) > 1, "some work is done")
            with mesh.client(load.key) as client:
                note = client.checkpoint().note
            began = time.time()
            said = cli.ok("backup", str(backup), f"--passphrase-file={passphrase}")
            assert said["secrets"] is True
            assert said["left_out"] == []
            done = len(load.receipts)
            until(lambda: len(load.receipts) > done, "the mesh went on serving")
            destroy(mesh)
    said = cli.ok("restore", str(backup), f"--passphrase-file={passphrase}")
    assert said["log_size"] >= said["checkpoint_size"] > 0
    with running(home, collector, "--sidecar", sidecar) as mesh:
        check(mesh, Load(mesh, load.key, astronaut, group, load.receipts, load.fusions), began, note)


def test_a_series_of_backups_loses_no_more_than_its_interval(
    tmp_path: Path, collector: Collector, group: bytes, astronaut: bytes, passphrase: Path,
) -> None:
    home, folder = tmp_path / "home", tmp_path / "backups"
    command = [
        sys.executable, "-m", "facetmesh.cli", f"--home={home}", "backup", str(folder), "--every=2s", "--keep=3",
        f"--passphrase-file={passphrase}",
    ]
    with running(home, collector) as mesh:
        load = Load(mesh, mesh.tenant("acme"), astronaut, group)
        with mesh.client(load.key) as client:
            note = client.checkpoint().note
        with (tmp_path / "series.out").open("w") as out:
            series = subprocess.Popen(command, stdout=out, stderr=out)
        try:
            with load.running():
                until(lambda: len(load.fusions) > 3 and len(load.receipts) > 30, "some work is done")
                until(lambda: len(list(folder.glob("*Z"))) == 3, "several backups are there")
                destroy(mesh)
                destroyed = time.time()
        finally:
            series.terminate()
            series.wait(DEADLINE_S)
    newest = max(folder.glob("*Z"))
    # A folder is named after the moment before its backup began.
    began = datetime.strptime(f"{newest.name[:-1]}+0000", "%Y%m%dT%H%M%S.%f%z").timestamp()
    assert destroyed - began < 60
    assert Cli(Home(home)).ok("restore", str(folder), f"--passphrase-file={passphrase}")["log_size"]
    with running(home, collector) as mesh:
        check(mesh, Load(mesh, load.key, astronaut, group, load.receipts, load.fusions), began, note)
