"""The process: it starts, or says why not, and ends when it should."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from facetmesh.kit import files
from facetmesh.sidecar.__main__ import _arguments
from facetmesh.sidecar.mesh import StartError
from facetmesh.sidecar.secrets import SecretsFileError, SecretStore

if TYPE_CHECKING:
    from collections.abc import Iterator

TIMEOUT_S = 90
TOKENS = json.dumps({"auth": {"dapr_api_token": "d", "app_api_token": "a"}})


@contextmanager
def _sidecar(
    home: Path, *arguments: str, tokens: str = TOKENS, lifeline: int | None = None, app: str = "auth:0:0:0"
) -> Iterator[subprocess.Popen[str]]:
    environment = {**os.environ, "FACETMESH_SIDECAR_TOKENS": tokens}
    if lifeline is not None:
        environment["FACETMESH_LIFELINE_FD"] = str(lifeline)
    process = subprocess.Popen(
        [sys.executable, "-m", "facetmesh.sidecar", f"--home={home}", f"--app={app}", *arguments],
        env=environment, stderr=subprocess.PIPE, text=True, pass_fds=() if lifeline is None else (lifeline,),
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "auth.json").write_text("{}")
    return tmp_path


def _first_line(process: subprocess.Popen[str], message: str) -> dict[str, object]:
    assert process.stderr is not None
    for line in process.stderr:
        entry = json.loads(line)
        if entry["message"] == message:
            return dict(entry)
    raise AssertionError(f"no line says {message!r}")


def _refusal(process: subprocess.Popen[str]) -> str:
    _, stderr = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 1
    last = json.loads(stderr.splitlines()[-1])
    assert last["message"] == "cannot start"
    return str(last["detail"])


def test_it_ends_with_its_supervisor(home: Path) -> None:
    read, write = os.pipe()
    with _sidecar(home, lifeline=read) as process:
        os.close(read)
        assert _first_line(process, "serving")["app"] == "auth"
        os.close(write)
        assert process.wait(TIMEOUT_S) == 0


def test_it_ends_when_it_is_asked_to(home: Path) -> None:
    with _sidecar(home) as process:
        _first_line(process, "serving")
        process.terminate()
        assert process.wait(TIMEOUT_S) == 0


def test_it_listens_on_the_loopback_only(home: Path) -> None:
    with _sidecar(home) as process:
        line = _first_line(process, "serving")
        ports = {int(str(line[name])) for name in ("grpc_port", "http_port")}
        listening = {
            (address, int(port, 16))
            for table in ("tcp", "tcp6")
            for address, port in (
                fields[1].split(":")
                for fields in map(str.split, Path(f"/proc/{process.pid}/net/{table}").read_text().splitlines()[1:])
                if fields[3] == "0A"
            )
            if int(port, 16) in ports
        }
        assert {port for _, port in listening} == ports
        # 127.0.0.1 as the kernel writes it; gRPC listens on the same as an IPv6 address.
        assert {address[-8:] for address, _ in listening} == {"0100007F"}


def test_no_token_is_in_the_arguments(home: Path) -> None:
    tokens = json.dumps({"auth": {"dapr_api_token": "very-secret-1", "app_api_token": "very-secret-2"}})
    with _sidecar(home, tokens=tokens) as process:
        _first_line(process, "serving")
        assert b"very-secret" not in Path(f"/proc/{process.pid}/cmdline").read_bytes()


def test_a_second_one_on_the_same_home_is_refused(home: Path) -> None:
    with _sidecar(home) as first:
        _first_line(first, "serving")
        with _sidecar(home) as second:
            assert "in use by another process" in _refusal(second)


@pytest.mark.parametrize("place", ["grpc", "http"])
def test_a_taken_port_is_named(home: Path, place: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        app = f"auth:{port}:0:0" if place == "grpc" else f"auth:0:{port}:0"
        with _sidecar(home, app=app) as process:
            assert f"port {port}" in _refusal(process)


def test_a_missing_secrets_file_is_named(home: Path) -> None:
    (home / "secrets" / "auth.json").unlink()
    with _sidecar(home) as process:
        detail = _refusal(process)
        assert "secrets.yaml: spec.metadata.secretsFile" in detail
        assert "auth.json" in detail


@pytest.mark.parametrize("content", ["", "[]", "{"])
def test_secrets_that_are_no_json_object_are_told(tmp_path: Path, content: str) -> None:
    (tmp_path / "s.json").write_text(content)
    with pytest.raises(SecretsFileError, match=r"s\.json: not"):
        SecretStore(tmp_path / "s.json")


def test_a_secrets_file_that_is_replaced_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    files.write(path, '{"a": "1"}', mode=files.PRIVATE)
    store = SecretStore(path)
    files.write(path, '{"a": "2"}', mode=files.PRIVATE)
    assert store.all == {"a": "2"}
    files.write(path, "{", mode=files.PRIVATE)
    assert store.all == {"a": "2"}, "a file that is no use changes nothing"
    path.unlink()
    assert store.all == {"a": "2"}


def test_a_wrong_component_is_named_with_its_field(home: Path, tmp_path: Path) -> None:
    components = tmp_path / "components"
    components.mkdir()
    (components / "odd.yaml").write_text("kind: Component\napiVersion: dapr.io/v1alpha1\n")
    with _sidecar(home, f"--components={components}") as process:
        detail = _refusal(process)
        assert "odd.yaml: metadata: " in detail
        assert "odd.yaml: spec: " in detail


def test_a_folder_that_cannot_be_written_is_named(home: Path) -> None:
    (home / "sidecar.db").mkdir()
    with _sidecar(home) as process:
        assert "sidecar.db" in _refusal(process)


@pytest.mark.parametrize("tokens", ["{}", "", '{"auth": {}}', '{"auth": 1}', "[]"])
def test_missing_tokens_are_told(monkeypatch: pytest.MonkeyPatch, tokens: str) -> None:
    monkeypatch.setenv("FACETMESH_SIDECAR_TOKENS", tokens)
    with pytest.raises(StartError, match="FACETMESH_SIDECAR_TOKENS"):
        _arguments(["--home=.", "--app=auth:0:0:0"])


@pytest.mark.parametrize("app", ["auth", "auth:1", "auth:a:b:c", "auth:1:2:3:4"])
def test_an_app_must_have_its_ports(monkeypatch: pytest.MonkeyPatch, app: str) -> None:
    monkeypatch.setenv("FACETMESH_SIDECAR_TOKENS", TOKENS)
    with pytest.raises(StartError, match="--app"):
        _arguments(["--home=.", f"--app={app}"])
