"""Jobs while workers are killed at random: each ends once, with a result or a reason, none is twice in the blob store.

FACETMESH_CRASH_JOBS says how many: the short form takes half a minute, 500 a quarter of an hour.
"""

from __future__ import annotations

import hashlib
import os
import random
import threading
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psutil
import pytest
from google.rpc import error_details_pb2
from tests.contract.harness import halt

from facetmesh.client import ResourceExhausted
from facetmesh.client.calls import fusion_of
from facetmesh.fusion.v1 import fusion_pb2

from .conftest import running
from .rig import AWAY, consented, patiently, until
from .test_kill import killed, runner_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future
    from pathlib import Path

    from google.longrunning import operations_pb2

    from facetmesh.client import Client

    from .conftest import Collector, Mesh

JOBS = int(os.environ.get("FACETMESH_CRASH_JOBS", "12"))
END_S = 120 + 6 * JOBS
BACK_S = 300
VICTIMS = ("fusion", "fusion runner", "detection runner")


def serves(client: Client) -> bool:
    """Whether fusion answers."""
    try:
        client.list_operations(limit=1)
    except (*AWAY, ResourceExhausted):
        return False
    return True


@contextmanager
def killing(mesh: Mesh, client: Client, deaths: Counter[str]) -> Iterator[Future[None]]:
    """Kills workers and what works for them, at random, one after the other has come back; gives what does so."""
    over, chance = threading.Event(), random.Random(os.urandom(8))  # noqa: S311 - who dies when is no secret

    def kill() -> None:
        while not over.wait(chance.uniform(0.2, 3)):
            victim = chance.choice(VICTIMS)
            try:
                back = killed(mesh, victim)
            except (StopIteration, ProcessLookupError, psutil.Error, KeyError):
                continue  # it is away already
            deaths[victim] += 1
            until(back, f"{victim} is back", BACK_S)
            until(lambda: serves(client), "fusion serves", BACK_S)

    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(kill)
        try:
            yield work
        finally:
            over.set()
        work.result(2 * BACK_S)  # raises what did not come back


def ended(client: Client, name: str) -> operations_pb2.Operation | None:
    """The operation, once it is done."""
    try:
        operation = client.get_operation(name)
    except (*AWAY, ResourceExhausted):
        return None
    return operation if operation.done else None


def reason(operation: operations_pb2.Operation) -> str:
    """Why a job was refused."""
    info = error_details_pb2.ErrorInfo()
    return next(detail for detail in operation.error.details if detail.Unpack(info)) and info.reason


def kept(mesh: Mesh) -> list[str]:
    """What the blobs of acme are of, once for each."""
    return sorted(path.parent.name for path in (mesh.home / "blobs" / "acme").rglob("*") if path.is_file())


@pytest.mark.full
def test_each_job_ends_once_however_often_workers_die(
    tmp_path: Path, collector: Collector, assets: dict[str, Path], astronaut: bytes
) -> None:
    assert assets
    deaths: Counter[str] = Counter()
    with running(tmp_path / "home", collector) as mesh, mesh.client(mesh.tenant("acme")) as client:
        consent = consented(client, astronaut)
        names = []
        with killing(mesh, client, deaths) as work:
            for _ in range(JOBS):
                request_id = str(uuid.uuid4())
                operation = patiently(
                    lambda request_id=request_id: client.create_fusion(
                        astronaut, astronaut, face_model="faces", consent=consent, request_id=request_id
                    )
                )
                names.append(operation.name)
            until(lambda: work.done() or deaths.total() >= max(3, JOBS // 10), "enough have died", END_S)
        operations = [until(lambda name=name: ended(client, name), f"{name} ends", END_S) for name in names]
        assert len({operation.name for operation in operations}) == JOBS
        made = [fusion_of(operation) for operation in operations if operation.HasField("response")]
        refused = Counter(reason(operation) for operation in operations if operation.HasField("error"))
        print(f"{JOBS} jobs: {len(made)} made, refused {dict(refused)}, killed {dict(deaths)}")  # noqa: T201 - the count
        assert len(made) + refused.total() == JOBS
        assert made
        assert "ATTEMPTS_EXHAUSTED" not in refused, "a service's death was held against a job"
        for fusion in made:
            content = patiently(lambda fusion=fusion: client.download_fusion(fusion.name))
            assert hashlib.sha256(content).hexdigest() == fusion.sha256
        ids = sorted(fusion.name.rpartition("/")[2] for fusion in made)
        until(lambda: kept(mesh) == ids, "one blob is left of each that was made, and none of another", END_S)


def progress(operation: operations_pb2.Operation) -> fusion_pb2.FusionMetadata:
    """How far an operation is."""
    found = fusion_pb2.FusionMetadata()
    operation.metadata.Unpack(found)
    return found


@pytest.mark.full
def test_a_job_goes_on_after_the_stage_that_was_finished(
    tmp_path: Path, collector: Collector, assets: dict[str, Path], astronaut: bytes
) -> None:
    """The worker dies while it fuses, and the model that found the faces is gone: who began anew could not end."""
    assert assets
    with running(tmp_path / "home", collector) as mesh, mesh.client(mesh.tenant("acme")) as client:
        client.create_model("finder", catalog_id="nudenet-320n", accept_licence="AGPL-3.0")
        consent = consented(client, astronaut)
        first = client.fuse(astronaut, astronaut, face_model="finder", consent=consent).fusion  # its runner is up
        halt(runner_of(mesh, "fusion"))  # so that what is fused next takes its time
        name = client.create_fusion(astronaut, astronaut, face_model="finder", consent=consent).name
        fusing = fusion_pb2.FusionMetadata.STAGE_FUSING
        until(lambda: progress(client.get_operation(name)).stage == fusing, "the faces are found", END_S)
        client.delete_model("finder")
        until(killed(mesh, "fusion"), "fusion is back", BACK_S)
        made = patiently(lambda: client.wait_fusion(name), deadline_s=END_S)
        assert progress(patiently(lambda: client.get_operation(name))).attempts > 1
        content = patiently(lambda: client.download_fusion(made.name))
        assert hashlib.sha256(content).hexdigest() == made.sha256
        ids = sorted(fusion.name.rpartition("/")[2] for fusion in (first, made))
        until(lambda: kept(mesh) == ids, "the results are left, and nothing of the stages", END_S)
