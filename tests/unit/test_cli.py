"""The command line: exit codes, one line of error, JSON. As a process, and where that adds nothing, within ours."""

from __future__ import annotations

import io
import json
import math
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from facetmesh.auth.v1 import auth_pb2
from facetmesh.cli import output
from facetmesh.cli.__main__ import main as entry
from facetmesh.cli.commands import detect, keys
from facetmesh.cli.main import main
from facetmesh.cli.mesh.home import Home
from facetmesh.cli.options import Options
from facetmesh.detection.v1 import detection_pb2
from facetmesh.kit import catalog
from facetmesh.kit.errors import FieldViolation, InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("FACETMESH_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("FACETMESH_KEY", raising=False)

    def run(*arguments: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "facetmesh.cli", *arguments],
            capture_output=True, text=True, check=False, timeout=180, env={**os.environ, **(environment or {})},
        )

    return run


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The same within this process: a second less for each."""
    monkeypatch.setenv("FACETMESH_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("FACETMESH_KEY", raising=False)

    def call(*arguments: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        out, err = io.StringIO(), io.StringIO()
        with monkeypatch.context() as patched, redirect_stdout(out), redirect_stderr(err):
            patched.setattr(sys, "argv", ["facetmesh", *arguments])
            for name, value in (environment or {}).items():
                patched.setenv(name, value)
            with pytest.raises(SystemExit) as ended:
                main()
        return subprocess.CompletedProcess(arguments, int(ended.value.code or 0), out.getvalue(), err.getvalue())

    return call


def test_the_catalogue_shows_licence_and_origin_and_whether_it_is_here(run: Any) -> None:
    done = run("models", "list", "--json")
    assert done.returncode == 0
    entries = {entry["id"]: entry for entry in json.loads(done.stdout)["catalogue"]}
    assert entries["nudenet-320n"]["licence"] == "AGPL-3.0"
    assert entries["nudenet-320n"]["needs_acceptance"] is True
    assert {"origin", "sha256", "fetched", "package", "version"} <= entries["facemesh"].keys()
    assert "AGPL-3.0" in run("models", "list").stdout


@pytest.mark.parametrize("command", [("tenants", "list"), ("audit", "checkpoint"), ("models", "versions", "pets")])
def test_without_a_mesh_one_line_says_how_to_start_one(run: Any, call: Any, command: tuple[str, ...]) -> None:
    done = run(*command)
    assert done.returncode == 1
    assert "`facetmesh up` starts one" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    told = json.loads(call("--json", *command).stderr)["error"]
    assert told["code"] == "FAILED_PRECONDITION"
    assert told["reason"] == "NO_ENDPOINTS"


def test_a_key_that_is_shown_can_be_copied(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    chosen = Options(json=False, home=Home(tmp_path), key_file=None, address=None, ca_file=None, tls=False)
    keys.show_once(chosen, auth_pb2.Key(name="tenants/acme/keys/k", secret="fm_acme_k_abc"), None)
    assert "fm_acme_k_abc" in capsys.readouterr().out.splitlines()


def test_before_a_key_is_made_there_is_a_place_for_it(call: Any, tmp_path: Path) -> None:
    there = tmp_path / "there.key"
    there.write_text("fm_acme_k_abc\n")

    def reason(*arguments: str) -> Any:
        return json.loads(call("--json", *arguments).stderr)["error"]["reason"]

    for command in (("keys", "create", "acme"), ("tenants", "onboard", "acme")):
        assert reason(*command, f"--out={there}") == "TARGET_EXISTS"
        assert reason(*command, f"--out={tmp_path / 'nowhere' / 'new.key'}") == "FOLDER_NOT_WRITABLE"
    rotate = ("keys", "rotate", "tenants/acme/keys/k")
    assert reason(*rotate, f"--out={tmp_path / 'nowhere' / 'new.key'}") == "FOLDER_NOT_WRITABLE"
    assert reason(*rotate, f"--out={there}") == "NO_ENDPOINTS", "a rotated key takes the old one's place"
    assert there.read_text() == "fm_acme_k_abc\n"


def test_what_is_no_key_and_no_address_is_named(call: Any, tmp_path: Path) -> None:
    photo, nothing = tmp_path / "photo.jpg", tmp_path / "empty.key"
    photo.write_bytes(bytes(range(256)))
    nothing.touch()
    for file in (photo, nothing):
        done = call("models", "list", f"--key-file={file}", "--address=127.0.0.1:1")
        assert (done.returncode, done.stderr) == (1, f"KEY_MISSING {file} holds no API key.\n")
    done = call("models", "list", "--address=http://127.0.0.1:7400", environment={"FACETMESH_KEY": "fm_acme_k_abc"})
    assert done.returncode == 1
    assert done.stderr.startswith("ADDRESS_INVALID The gateway's address is host:port")


def test_what_to_call_next_names_the_state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACETMESH_HOME", str(tmp_path / "home"))
    chosen = Options(json=False, home=Home.default(), key_file=None, address=None, ca_file=None, tls=False)
    assert chosen.called == output.called()
    assert replace(chosen, home=Home(tmp_path / "an other")).called.endswith(f" --home '{tmp_path / 'an other'}'")


def test_status_says_that_nothing_runs(call: Any) -> None:
    done = call("status", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["running"] is False
    assert json.loads(call("down", "--json").stdout) == {"stopped": False}


def test_a_licence_must_be_named(call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACETMESH_CACHE", str(tmp_path / "cache"))
    done = call("models", "fetch", "nudenet-320n")
    assert done.returncode == 1
    assert "--accept-licence AGPL-3.0" in done.stderr


def test_an_interrupt_before_anything_has_begun_is_an_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: str) -> None:
        raise KeyboardInterrupt

    being_read = ModuleType("facetmesh.cli.main")
    being_read.__getattr__ = interrupted  # type: ignore[method-assign]
    monkeypatch.setitem(sys.modules, "facetmesh.cli.main", being_read)
    with pytest.raises(SystemExit) as ended:
        entry()
    assert ended.value.code == 130


def test_wrong_usage_is_exit_code_2(run: Any) -> None:
    assert run("nonsense").returncode == 2
    assert run("detect", "/no/such/image").returncode == 2


def test_a_receipt_that_is_none_does_not_hold(call: Any, tmp_path: Path) -> None:
    (tmp_path / "receipt.json").write_text("{}")
    (tmp_path / "log.vkey").write_text("nonsense")
    done = call("audit", "verify", str(tmp_path / "receipt.json"), "--log-key", str(tmp_path / "log.vkey"), "--json")
    assert done.returncode == 1
    assert json.loads(done.stderr)["error"]["reason"] == "KEY_MALFORMED"


def test_doctor_gives_a_verdict_on_each_thing(call: Any) -> None:
    done = call("doctor", "--json")
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert {"Python", "engine", "memory", "disk", "ports", "daprd", "GPU"} <= checks.keys()
    assert {check["verdict"] for check in checks.values()} <= {"OK", "WARN", "FAIL"}
    assert all(check["advice"] for check in checks.values() if check["verdict"] != "OK")
    assert done.returncode == any(check["verdict"] == "FAIL" for check in checks.values())


def test_what_is_required_must_be_there(call: Any) -> None:
    done = call("doctor", "--require", "python", "--json")
    assert done.returncode == 0
    assert [check["name"] for check in json.loads(done.stdout)["checks"]] == ["Python"]
    # No driver is found on an empty path.
    done = call("doctor", "--require", "gpu", "--json", environment={"PATH": ""})
    assert done.returncode == 1
    assert [check["verdict"] for check in json.loads(done.stdout)["checks"]] == ["WARN"]
    unknown = call("doctor", "--require", "nonsense", "--json")
    assert unknown.returncode == 1
    assert json.loads(unknown.stderr)["error"]["reason"] == "UNKNOWN_CHECK"


def test_models_are_verified_before_a_pod_takes_calls(call: Any, tmp_path: Path) -> None:
    here = {"FACETMESH_CACHE": str(tmp_path / "cache")}
    none = call("models", "verify", "--json", environment=here)
    assert (none.returncode, json.loads(none.stdout)) == (0, {"verified": {}})
    missing = call("models", "verify", "facemesh", "--json", environment=here)
    assert (missing.returncode, json.loads(missing.stdout)) == (1, {"verified": {"facemesh": "missing"}})
    (tmp_path / "cache" / "models").mkdir(parents=True)
    asset = catalog.asset("facemesh")
    (tmp_path / "cache" / "models" / f"facemesh-{asset.sha256[:12]}.tflite").write_bytes(b"half of i")
    damaged = call("models", "verify", "--json", environment=here)
    assert (damaged.returncode, json.loads(damaged.stdout)) == (1, {"verified": {"facemesh": "damaged"}})


def test_what_the_base_install_lacks_is_named(tmp_path: Path) -> None:
    # A folder first on the path whose psutil is not there to be found.
    (tmp_path / "psutil.py").write_text("raise ModuleNotFoundError('No module named psutil', name='psutil')")
    done = subprocess.run(
        [sys.executable, "-m", "facetmesh.cli", "--home", str(tmp_path), "up"],
        capture_output=True, text=True, check=False, env={"PYTHONPATH": str(tmp_path), "PATH": ""}, timeout=180,
    )
    assert done.returncode == 1
    assert 'pip install "facetmesh[serve]"' in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("where", ["before", "after", "joined"])
def test_global_options_may_stand_anywhere(call: Any, tmp_path: Path, where: str) -> None:
    home = str(tmp_path / "elsewhere")
    arguments = {
        "before": ("--home", home, "--json", "status"),
        "after": ("status", "--json", "--home", home),
        "joined": ("status", f"--home={home}", "--json"),
    }[where]
    assert json.loads(call(*arguments).stdout)["home"] == home


def test_what_is_piped_is_not_folded_nor_taken_for_markup(run: Any, tmp_path: Path) -> None:
    home = str(tmp_path / ("[bold]" + "long" * 50))
    assert home in run("--home", home, "down").stdout.splitlines()[0]
    told = run("models", "list").stdout.splitlines()
    assert any("nudenet-320n" in line and "AGPL-3.0 (must be accepted)" in line for line in told)


def test_a_backup_wants_to_know_of_the_secrets_and_overwrites_nothing(call: Any, tmp_path: Path) -> None:
    def reason(*arguments: str) -> str:
        done = call("--json", "backup", *arguments)
        assert done.returncode == 1
        return str(json.loads(done.stderr)["error"]["reason"])

    phrase = tmp_path / "phrase"
    phrase.write_text("correct horse battery staple\n")
    phrase.chmod(0o600)
    there = str(tmp_path / "home.tar")
    assert reason(there) == "SECRETS_UNDECIDED"
    assert reason(there, f"--passphrase-file={phrase}", "--without-secrets") == "SECRETS_UNDECIDED"
    assert reason(there, "--without-secrets", "--every=0s") == "INTERVAL_INVALID"
    assert reason(there, "--without-secrets", "--every=soon") == "INTERVAL_INVALID"
    (tmp_path / "home.tar").write_text("mine")
    assert reason(there, "--without-secrets") == "TARGET_EXISTS"
    assert (tmp_path / "home.tar").read_text() == "mine"
    assert reason(str(tmp_path / "new"), "--without-secrets") == "STATE_MISSING"


def test_a_fault_is_said_once(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "err", Console(stderr=True, width=500))
    faults = [FieldViolation("images", "must contain at least 20 item(s)"), FieldViolation("name", "is wrong")]
    error = InvalidArgument("images: must contain at least 20 item(s)", reason="FIELD_INVALID", violations=faults)
    output.complain(error, as_json=False)
    told = "FIELD_INVALID images: must contain at least 20 item(s); name: is wrong\n"
    assert capsys.readouterr().err == told


def test_facts_are_written_as_people_read_them() -> None:
    shown = output.facts({"a": 2.0, "limits": {"stored_bytes": 2_199_023_255_552.0, "rate": 0.25}, "few": ["x", "y"]})
    assert shown.splitlines() == ["a       2", "limits  stored_bytes 2,199,023,255,552, rate 0.2", "few     x, y"]


def test_the_command_is_named_as_the_shell_finds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkout's environment need not be activated: `facetmesh` alone would not be found, or be another."""
    script, other = tmp_path / "venv" / "facetmesh", tmp_path / "other" / "facetmesh"
    for file in (script, other):
        file.parent.mkdir()
        file.touch(mode=0o755)
    monkeypatch.setattr(sys, "argv", [str(script), "demo"])
    monkeypatch.setenv("PATH", str(script.parent))
    assert output.called() == "facetmesh"
    for elsewhere in (other.parent, tmp_path):
        monkeypatch.setenv("PATH", str(elsewhere))
        assert output.called() == str(script)
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "cli" / "__main__.py")])
    assert output.called() == f"{sys.executable} -m facetmesh.cli"


def shown(found: detection_pb2.DetectResponse) -> str:
    stream = io.StringIO()
    Console(file=stream, width=200).print(detect.view(found))
    return stream.getvalue()


def test_each_kind_of_answer_is_shown() -> None:
    """Of a model that classifies, nothing was."""
    found = detection_pb2.DetectResponse()
    assert "--min-confidence" in shown(found)
    assert detect.view(found, 0.01) == "Nothing was found."
    found.classifications.add(label="tabby", class_id=1, confidence=0.75)
    assert shown(found).split() == ["label", "confidence", "tabby", "0.75"]
    found = detection_pb2.DetectResponse()
    one = found.detections.add(label="ship", confidence=0.5)
    assert shown(found).split()[:6] == ["label", "confidence", "left", "top", "right", "bottom"]
    assert " and" not in shown(found)
    one.mask.width = 10
    one.rotated_box.angle_rad = math.pi / 2
    one.keypoints.add()
    assert shown(found).splitlines()[1].rstrip().endswith("1 points, a mask, turned by 90°")
