"""The mesh on daprd, Redis and sentry: started, killed process by process, stopped; nothing survives it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import grpc
import pytest
from bench.daprd import measure

from facetmesh.cli.mesh.home import Home
from facetmesh.cli.mesh.ports import SERVICES
from facetmesh.kit import shipped

from .rig import Cli, none_left, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STORES = ("redis", "sentry")
SIDECARS = tuple(f"daprd-{service}" for service in SERVICES)
DAPRD = "--sidecar=daprd"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """A detached mesh that these tests may harm."""
    cli = Cli(Home(tmp_path_factory.mktemp("daprd") / "home"))
    cli.ok("up", "--detach", "--port-base=0", DAPRD)
    cli.ok("tenants", "create", "acme", "--allow-licences", "copyleft")
    yield cli
    family = cli.family()
    assert cli.ok("down") == {"stopped": True}
    assert none_left(family)


def serving(cli: Cli) -> dict[str, int]:
    """The processes by name when all serve, else none."""
    state = json.loads(cli("status").stdout)
    return {one["name"]: one["pid"] for one in state["processes"]} if state["serving"] else {}


@pytest.mark.full
def test_each_service_has_a_sidecar_of_its_own(own: Cli) -> None:
    assert set(STORES + SIDECARS + SERVICES) <= set(serving(own))


@pytest.mark.full
def test_sidecars_admit_nobody_without_a_certificate(own: Cli) -> None:
    """Where they listen for each other."""
    arguments = next(one.cmdline() for one in own.family() if "--app-id=auth" in one.cmdline())
    port = next(one.partition("=")[2] for one in arguments if one.startswith("--dapr-internal-grpc-port="))
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary("/dapr.proto.internals.v1.ServiceInvocation/CallLocal")
        with pytest.raises(grpc.RpcError) as caught:
            call(b"", timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.full
def test_no_secret_is_in_arguments_or_logs(own: Cli) -> None:
    told = "\n".join(" ".join(process.cmdline()) for process in own.family())
    told += "\n".join(path.read_text() for path in own.home.logs.iterdir())
    secrets = [value for path in own.home.secrets.iterdir() for value in json.loads(path.read_text()).values()]
    configuration = (own.home.path / "redis" / "redis.conf").read_text()
    secrets += [line.split()[1] for line in configuration.splitlines() if line.startswith("requirepass")]
    for process in own.family():
        secrets += [value for name, value in process.environ().items() if name.endswith("API_TOKEN")]
    assert len(secrets) > len(SERVICES) * 4
    assert not [value for value in secrets if value in told]


@pytest.mark.full
@pytest.mark.parametrize("name", [*STORES, "daprd-auth", "daprd-audit", "auth"])
def test_a_killed_process_is_replaced_and_all_serve_again(own: Cli, name: str) -> None:
    before = own.pids()
    os.kill(before[name], signal.SIGKILL)
    after = until(lambda: (pids := serving(own)).get(name, before[name]) != before[name] and pids, f"{name} is back")
    assert {other for other in after if after[other] != before[other]} == {name}, "nothing else was restarted"
    until(lambda: own("tenants", "list").returncode == 0, "auth answers")
    assert [tenant["name"] for tenant in own.ok("tenants", "list")["tenants"]] == ["tenants/acme"]


@pytest.mark.full
def test_nothing_outlives_a_killed_supervisor_and_the_next_goes_on(own: Cli) -> None:
    family = own.family()
    assert len(family) > len(STORES + SIDECARS + SERVICES)
    family[0].send_signal(signal.SIGKILL)
    until(lambda: none_left(family), "all processes end with their supervisor")
    own.ok("up", "--detach", "--port-base=0", DAPRD)
    assert [tenant["name"] for tenant in own.ok("tenants", "list")["tenants"]] == ["tenants/acme"]


@pytest.mark.full
def test_in_the_foreground_there_is_one_log_and_an_interrupt_ends_all(tmp_path: Path) -> None:
    cli = Cli(Home(tmp_path / "home"))
    said = tmp_path / "said"
    with said.open("w") as out:
        mesh = subprocess.Popen(
            [sys.executable, "-m", "facetmesh.cli", f"--home={cli.home.path}", "up", "--port-base=0", DAPRD],
            stdout=out, stderr=out,
        )
    try:
        until(lambda: cli.home.endpoints.exists() or mesh.poll() is not None, "the mesh serves")
        family = cli.family()
    finally:
        mesh.send_signal(signal.SIGINT)
        mesh.wait(60)
    assert none_left(family)
    lines = said.read_text().splitlines()
    for name in (*STORES, *SIDECARS, *SERVICES):
        assert any(line.split()[:2] == [name, "serving"] for line in lines), name
        assert any(line.split()[:2] == [name, "stopped"] for line in lines), name
    assert not [line for line in lines if '"msg"' in line], "JSON is for programs"


def test_a_wrong_component_file_is_named_before_anything_starts(tmp_path: Path) -> None:
    folder = tmp_path / "components"
    shutil.copytree(shipped.folder("components", "redis"), folder)
    state = folder / "state.yaml"
    state.write_text(state.read_text().replace("redisHost", "redisHosts"))
    cli = Cli(Home(tmp_path / "home"))
    done = cli("up", "--detach", "--port-base=0", DAPRD, f"--components={folder}")
    error = json.loads(done.stderr.splitlines()[-1])["error"]
    assert (done.returncode, error["reason"]) == (1, "COMPONENT_INVALID")
    assert error["metadata"] == {"file": str(state), "field": "spec.metadata.redisHosts"}
    assert not cli.pids()


@pytest.mark.full
async def test_a_thousand_events_a_second_are_logged_once_each() -> None:
    """The short form of `make bench-daprd`."""
    outcome = await measure(seconds=10, per_second=1000)
    assert outcome.published > 9000
    assert (outcome.lost, outcome.twice) == (0, 0)
