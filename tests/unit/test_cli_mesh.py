"""The state folder, the secrets in it, and the ports."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import socket
import stat
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import psutil
import pytest

from facetmesh.cli.mesh import home as home_module
from facetmesh.cli.mesh import state
from facetmesh.cli.mesh.home import Home
from facetmesh.cli.mesh.ports import SERVICES, Ports, choose
from facetmesh.cli.mesh.process import KEPT_LOGS, describe_exit, last_words, rotate
from facetmesh.cli.mesh.secrets import ensure, rotate_token_key
from facetmesh.kit import apikeys, credentials, errors
from facetmesh.kit.credentials import Credential
from facetmesh.verify import VerifierKey

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home")
    made.prepare()
    return made


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def contents(home: Home) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in home.path.rglob("*") if path.is_file()}


def test_nobody_else_can_read_what_is_secret(home: Home) -> None:
    old = os.umask(0)
    try:
        ensure(home)
    finally:
        os.umask(old)
    assert mode(home.path) == mode(home.secrets) == 0o700
    assert mode(home.admin_key) == 0o600
    assert {mode(path) for path in home.secrets.iterdir()} == {0o600}


def test_every_secret_is_its_own(home: Home) -> None:
    ensure(home)
    secrets = {service: json.loads((home.secrets / f"{service}.json").read_text()) for service in SERVICES}
    values = [value for content in secrets.values() for value in content.values()]
    assert len(set(values)) == len(values)
    assert all(len(base64.b64decode(content["data-kek"])) == 32 for content in secrets.values())
    assert json.loads(secrets["auth"]["service-keys"]) == {name: secrets[name]["service-key"] for name in SERVICES}
    admin = home.admin_key.read_text().strip()
    assert apikeys.parse(admin) == apikeys.ApiKey("platform", "admin")
    assert secrets["auth"]["admin-key"] == admin
    assert VerifierKey.parse(home.log_key.read_text()).name == "facetmesh.local/audit"
    assert set(json.loads(home.service_keys.read_text())) == set(SERVICES)


def test_two_homes_share_nothing(tmp_path: Path) -> None:
    homes = [Home(tmp_path / name) for name in ("a", "b")]
    for one in homes:
        one.prepare()
        ensure(one)
    assert homes[0].admin_key.read_text() != homes[1].admin_key.read_text()


def test_another_start_changes_nothing(home: Home) -> None:
    ensure(home)
    before = contents(home)
    ensure(home)
    assert contents(home) == before


def test_what_is_derived_is_made_again(home: Home) -> None:
    ensure(home)
    before = contents(home)
    for path in (home.admin_key, home.service_keys, home.log_key):
        path.unlink()
    ensure(home)
    assert contents(home) == before


def test_a_lost_secret_is_named_and_never_replaced(home: Home) -> None:
    ensure(home)
    path = home.secrets / "audit.json"
    content = json.loads(path.read_text())
    del content["log-signing-key"]
    path.write_text(json.dumps(content))
    before = contents(home)
    with pytest.raises(errors.FailedPrecondition) as caught:
        ensure(home)
    assert caught.value.reason == "SECRETS_INCOMPLETE"
    assert "log-signing-key" in caught.value.message
    assert contents(home) == before


def test_the_token_key_is_rotated_and_the_last_one_kept_or_not(home: Home) -> None:
    path = home.secrets / "auth.json"

    def keys() -> list[str]:
        text = json.loads(path.read_text())["token-signing-key"]
        return [part for part in text.split("-----BEGIN PRIVATE KEY-----\n") if part]

    ensure(home)
    (first,) = keys()
    others = {name: value for name, value in home.read(path).items() if name != "token-signing-key"}
    rotate_token_key(home, keep_old=True)
    second, kept = keys()
    assert kept == first
    rotate_token_key(home, keep_old=True)
    assert keys()[1:] == [second]
    rotate_token_key(home, keep_old=False)
    assert len(keys()) == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert others.items() <= home.read(path).items()


def test_two_owners_are_refused_across_processes(home: Home) -> None:
    assert home.owner() is None
    with home.owned():
        assert home.owner() == os.getpid()
        program = (
            "import sys; from pathlib import Path; from facetmesh.cli.mesh.home import Home\n"
            "from facetmesh.kit.errors import FailedPrecondition\n"
            "try:\n    with Home(Path(sys.argv[1])).owned(): print('owned')\n"
            "except FailedPrecondition as error: print(error.reason)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, str(home.path)], capture_output=True, text=True, check=True,
        )
        assert done.stdout.strip() == "MESH_RUNNING"
    assert home.owner() is None


def test_who_only_looks_keeps_nobody_from_starting(home: Home) -> None:
    with (home.path / "mesh.lock").open("a+") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        letting_go = threading.Timer(0.1, looking.close)
        letting_go.start()
        with home.owned():
            assert home.owner() == os.getpid()
        letting_go.join()


async def test_the_state_of_what_has_just_ended_is_told_all_the_same() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:  # noqa: ASYNC220
        seen = psutil.Process(process.pid)
        process.kill()
    assert (await state._state("sidecar", seen, "")).memory_mib == 0


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.FailedPrecondition) as caught:
        Home(tmp_path / "file" / "home").prepare()
    assert caught.value.reason == "FOLDER_NOT_WRITABLE"
    assert str(tmp_path / "file" / "home") in caught.value.message


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(home_module, "_NEEDED_BYTES", 1 << 60)
    with pytest.raises(errors.ResourceExhausted) as caught:
        Home(tmp_path / "home").prepare()
    assert caught.value.reason == "DISK_FULL"


def test_a_taken_port_is_named() -> None:
    ports = choose(0)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", ports.of("fusion").metrics))
        listener.listen()
        assert ports.taken() == [ports.of("fusion").metrics]
        with pytest.raises(errors.FailedPrecondition) as caught:
            choose(ports.base)
    assert caught.value.reason == "PORTS_TAKEN"
    assert str(ports.of("fusion").metrics) in caught.value.message
    assert choose(ports.base) == ports


def test_no_port_has_two_uses() -> None:
    assert len(set(Ports(7400).all)) == len(Ports(7400).all) == 7 + 7 * len(SERVICES)
    assert Ports(7400).of("auth").address == "127.0.0.1:7401"
    assert Ports(7400).of("audit").callback == 7444


def test_logs_of_earlier_starts_are_kept_up_to_a_number(tmp_path: Path) -> None:
    log = tmp_path / "auth.jsonl"
    for start in range(KEPT_LOGS + 3):
        log.write_text(f"start {start}")
        rotate(log)
    rotate(log)
    kept = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert kept == {f"auth.jsonl.{n}": f"start {KEPT_LOGS + 3 - n}" for n in range(1, KEPT_LOGS + 1)}


def test_the_last_error_is_what_a_process_died_of(tmp_path: Path) -> None:
    log = tmp_path / "auth.jsonl"
    assert last_words(log) == ""
    log.write_text(
        '{"level": "critical", "message": "cannot start", "reason": "PORT_TAKEN", "detail": "Port 1 is taken."}\n'
        '{"level": "info", "message": "bye"}\n',
    )
    assert last_words(log) == "cannot start: PORT_TAKEN: Port 1 is taken."
    log.write_text("Traceback\nImportError: no x\n\n")
    assert last_words(log) == "ImportError: no x"


def test_exit_codes_in_words() -> None:
    assert describe_exit(3) == "exit code 3"
    assert describe_exit(-9) == "killed by SIGKILL"


def test_a_state_folder_of_before_gets_a_credential_and_keeps_it(home: Home) -> None:
    ensure(home)
    path = home.secrets / "fusion.json"
    stored = json.loads(path.read_text())
    first = stored.pop(credentials.SECRET)
    path.write_text(json.dumps(stored))
    ensure(home)
    again = json.loads(path.read_text())
    made = again.pop(credentials.SECRET)
    assert Credential.read(made).chain != Credential.read(first).chain
    assert again == stored
    ensure(home)
    assert json.loads(path.read_text())[credentials.SECRET] == made
    assert mode(path) == 0o600
