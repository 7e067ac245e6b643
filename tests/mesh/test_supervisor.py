"""The supervisor with real processes: started, killed, replaced, stopped."""

from __future__ import annotations

import json
import os
import signal
import socket
from secrets import token_hex
from typing import TYPE_CHECKING

import psutil
import pytest

from facetmesh.cli.mesh.home import Home
from facetmesh.cli.mesh.ports import SERVICES, choose

from .rig import Cli, none_left, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """A detached mesh that these tests may harm; it is stopped afterwards, and nothing of it may be left."""
    cli = Cli(Home(tmp_path_factory.mktemp("own") / "home"))
    cli.ok("up", "--detach", "--port-base=0")
    family = cli.family()
    yield cli
    family += cli.family()
    assert cli.ok("down") == {"stopped": True}
    assert none_left(family)


def serving_pids(cli: Cli) -> dict[str, int] | None:
    """The processes by name when all serve, else None."""
    state = json.loads(cli("status").stdout)
    return {one["name"]: one["pid"] for one in state["processes"]} if state["serving"] else None


def test_all_serve_and_their_addresses_are_written_down(own: Cli) -> None:
    state = own.ok("status")
    assert [one["name"] for one in state["processes"]] == ["sidecar", *SERVICES]
    assert {one["state"] for one in state["processes"]} == {"RUNNING", "SERVING"}
    endpoints = json.loads(own.home.endpoints.read_text())
    assert {one["name"]: one["address"] for one in state["processes"] if one["address"]} == endpoints
    assert set(own.ok("tenants", "list")) == {"tenants"}


def test_a_second_mesh_on_the_same_folder_is_refused(own: Cli) -> None:
    before = until(lambda: serving_pids(own), "all serve")
    done = own("up", "--detach", "--port-base=0")
    assert done.returncode == 1
    assert json.loads(done.stderr.splitlines()[-1])["error"]["reason"] == "MESH_RUNNING"
    assert own.pids() == before
    until(lambda: serving_pids(own) == before, "all serve, none was started anew")


def test_no_secret_is_in_arguments_or_logs(own: Cli) -> None:
    told = "\n".join(" ".join(process.cmdline()) for process in own.family())
    told += "\n".join(path.read_text() for path in own.home.logs.iterdir())
    secrets = [json.loads(path.read_text()) for path in own.home.secrets.iterdir()]
    values = [value for content in secrets for value in content.values()]
    assert values
    assert not [value for value in values if value in told]


def test_a_killed_process_is_replaced_and_all_serve_again(own: Cli) -> None:
    """As it says itself; what becomes of each, and of its work, test_kill tries."""
    name, before = "auth", own.pids()
    os.kill(before[name], signal.SIGKILL)
    after = until(
        lambda: (pids := serving_pids(own)) and pids[name] != before[name] and pids, f"{name} serves again",
    )
    assert {other: pid for other, pid in after.items() if other != name} == {
        other: pid for other, pid in before.items() if other != name
    }, "nothing else was restarted"


@pytest.mark.full
def test_what_was_made_survives_the_supervisors_death(own: Cli) -> None:
    tenant = f"tenants/acme-{token_hex(4)}"
    own.ok("tenants", "create", tenant.removeprefix("tenants/"), "--allow-licences", "copyleft")
    family = own.family()
    assert len(family) >= 6

    family[0].send_signal(signal.SIGKILL)
    try:
        until(lambda: none_left(family), "all processes end with their supervisor")
        assert own("status").returncode == 1
    finally:
        own.ok("up", "--detach", "--port-base=0")
    assert tenant in [one["name"] for one in own.ok("tenants", "list")["tenants"]]


def test_a_taken_port_ends_the_start_with_its_number(tmp_path: Path) -> None:
    ports = choose(0)
    taken = ports.of("audit").grpc
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", taken))
        listener.listen()
        done = Cli(Home(tmp_path / "home"))("up", "--detach", f"--port-base={ports.base}")
    error = json.loads(done.stderr.splitlines()[-1])["error"]
    assert (done.returncode, error["reason"], error["metadata"]["ports"]) == (1, "PORTS_TAKEN", str(taken))


def test_a_process_that_cannot_start_is_named_and_the_others_are_stopped(tmp_path: Path) -> None:
    cli = Cli(Home(tmp_path / "home"))
    cli.home.prepare()
    cli.home.path.joinpath("audit").write_text("a file where audit wants its folder")
    cli.home.path.joinpath("audit.db").mkdir()
    done = cli("up", "--detach", "--port-base=0")
    error = json.loads(done.stderr.splitlines()[-1])["error"]
    assert (done.returncode, error["reason"]) == (1, "START_FAILED")
    assert cli.home.owner() is None
    running = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
    assert not [line for line in running if str(cli.home.path) in line]
