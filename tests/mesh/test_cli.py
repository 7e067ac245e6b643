"""The commands that talk to a mesh, as a program sees them: JSON, files, exit codes."""

from __future__ import annotations

import json
import stat
from secrets import token_hex
from typing import TYPE_CHECKING, Any

import pytest

from facetmesh.cli.mesh.home import Home

from .rig import Cli, until

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Mesh

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def cli(mesh: Mesh) -> Cli:
    """The command line on the mesh's state folder, where the admin's key lies."""
    return Cli(Home(mesh.home))


@pytest.fixture(scope="module")
def key_file(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key of a tenant of these tests, made by commands, with a model."""
    path = tmp_path_factory.mktemp("keys") / "initech.key"
    tenant = cli.ok("tenants", "create", "initech", "--display-name=Initech", "--allow-licences=copyleft")
    assert tenant["name"] == "tenants/initech"
    roles = ("--role=tenant-admin", "--role=caller", "--role=auditor")
    made = cli.ok("keys", "create", "initech", *roles, f"--out={path}")
    assert "secret" not in made, "who asks for a file does not want it on the screen"
    added = cli.ok("models", "add", "nudenet-320n", "--as=faces", "--accept-licence=AGPL-3.0", key_file=path)
    assert added["name"] == "tenants/initech/models/faces"
    return path


def error(done: Any) -> dict[str, Any]:
    """What a command that failed told on stderr."""
    assert done.returncode == 1
    told: dict[str, Any] = json.loads(done.stderr)["error"]
    return told


def test_a_key_is_written_for_its_owner_alone_and_listed_without_its_secret(cli: Cli, key_file: Path) -> None:
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    *_, listed = sorted(cli.ok("keys", "list", "initech")["keys"], key=lambda key: len(key.get("roles", ())))
    assert "secret" not in listed
    assert set(listed["roles"]) == {"ROLE_TENANT_ADMIN", "ROLE_CALLER", "ROLE_AUDITOR"}


def test_a_revoked_key_is_useless(cli: Cli, key_file: Path) -> None:
    assert key_file
    made = cli.ok("keys", "create", "initech")
    other = key_file.with_name("other.key")
    other.write_text(made["secret"])
    assert cli.ok("models", "list", key_file=other)["models"]
    assert "revoke_time" in cli.ok("keys", "revoke", made["name"])
    assert error(cli("models", "list", key_file=other))["reason"] == "KEY_INVALID"


def test_a_key_is_limited_and_rotated(cli: Cli, key_file: Path, tmp_path: Path) -> None:
    assert key_file
    key = tmp_path / "limited.key"
    methods = [f"--method=facetmesh.detection.v1.{each}" for each in ("DetectionService/*", "ModelService/ListModels")]
    made = cli.ok("keys", "create", "initech", *methods, "--model=other", "--days=1", f"--out={key}")
    assert made["models"] == ["tenants/initech/models/other"]
    assert "expire_time" in made
    (tmp_path / "photo.jpg").write_bytes(b"x")
    told = error(cli("detect", str(tmp_path / "photo.jpg"), "--model=faces", key_file=key))
    assert (told["code"], told["reason"]) == ("PERMISSION_DENIED", "SCOPE_MISSING")
    assert cli.ok("models", "list", key_file=key)["models"]
    old = key.read_text()
    cli.ok("keys", "rotate", made["name"], "--overlap-hours=0", f"--out={key}")
    assert key.read_text() != old
    assert cli.ok("models", "list", key_file=key)["models"]
    key.write_text(old)
    assert error(cli("models", "list", key_file=key))["reason"] == "KEY_INVALID"
    (listed,) = (one for one in cli.ok("keys", "list", "initech")["keys"] if one["name"] == made["name"])
    assert "last_use_time" in listed


def test_a_tenants_life(cli: Cli, tmp_path: Path) -> None:
    key, tenant = tmp_path / "hooli.key", f"hooli-{token_hex(4)}"
    cli.ok("tenants", "create", tenant, "--allow-licences", "copyleft")
    cli.ok("keys", "create", tenant, f"--out={key}")
    assert cli.ok("tenants", "update", tenant, "--display-name=Hooli")["display_name"] == "Hooli"
    assert cli.ok("tenants", "suspend", tenant)["state"] == "STATE_SUSPENDED"
    assert error(cli("models", "list", key_file=key))["reason"] == "TENANT_SUSPENDED"
    assert cli.ok("tenants", "resume", tenant)["state"] == "STATE_ACTIVE"
    # A token of the second in which its tenant was suspended counts as older.
    assert cli.insist("models", "list", key_file=key)
    assert "expire_time" in cli.ok("tenants", "delete", tenant)
    assert error(cli("models", "list", key_file=key))["reason"] == "KEY_INVALID"
    lists = (cli.ok("tenants", "list", *more)["tenants"] for more in ((), ("--deleted",)))
    present, all_ = ({one["name"] for one in listed} for listed in lists)
    assert f"tenants/{tenant}" in all_ - present
    assert cli.ok("tenants", "undelete", tenant)["state"] == "STATE_ACTIVE"


def test_detect_and_its_receipt(
    cli: Cli, key_file: Path, assets: dict[str, Path], tmp_path: Path,
) -> None:
    photo = str(assets["photo-six-faces"])
    labels = ("--label=FACE_FEMALE", "--label=FACE_MALE")
    picture, receipt = tmp_path / "boxes.png", tmp_path / "receipt.json"
    found = cli.ok("detect", photo, "--model=faces", *labels, f"--out={picture}", key_file=key_file)
    assert len(found["detections"]) == 6
    assert picture.read_bytes().startswith(PNG)
    again = cli.ok("detect", photo, "--model=faces", "--model-version=1", *labels, key_file=key_file)
    assert again["detections"] == found["detections"]
    none = error(cli("detect", photo, "--model=faces", "--model-version=canary", key_file=key_file))
    assert none["reason"] == "VERSION_NOT_FOUND"

    cli.ok("audit", "receipt", found["receipt"], f"--out={receipt}", key_file=key_file)
    verified = cli.ok("audit", "verify", str(receipt), f"--input={photo}")
    assert verified["event"]["method"] == "facetmesh.detection.v1.DetectionService/Detect"
    assert verified["matching_files"] == [photo]
    other = error(cli("audit", "verify", str(receipt), f"--input={assets['photo-astronaut']}"))
    assert other["reason"] == "INPUT_MISMATCH"
    receipt.write_text(receipt.read_text().replace('"index": "', '"index": "1'))
    assert error(cli("audit", "verify", str(receipt)))["code"] == "INVALID_ARGUMENT"


def test_fuse_writes_the_picture(cli: Cli, key_file: Path, assets: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "fused.png"
    photos = (str(assets["photo-astronaut"]), str(assets["photo-six-faces"]))
    told = error(cli("fuse", *photos, "--face-model=faces", f"--out={out}", key_file=key_file))
    assert told["reason"] == "CONSENT_MISSING"
    evidence = tmp_path / "signed.txt"
    evidence.write_text("I agree.")
    agreed = ("--subject=astronaut", "--purpose=a test", f"--evidence={evidence}", "--days=1")
    consent = cli.ok("consents", "create", photos[0], *agreed, key_file=key_file)["name"]
    given = ("--face-model=faces", f"--consent={consent}", f"--out={out}")
    fused = cli.ok("fuse", *photos, *given, key_file=key_file)
    assert fused["file"] == str(out)
    assert out.read_bytes().startswith(PNG)


def test_the_log_is_there_to_be_read(cli: Cli, key_file: Path) -> None:
    checkpoint = cli.ok("audit", "checkpoint")
    assert checkpoint["size"] > 0
    assert len(bytes.fromhex(checkpoint["root_hash"])) == 32
    events = until(lambda: cli.ok("audit", "events", "--limit=5", key_file=key_file)["events"], "something is logged")
    assert len(events) <= 5
    assert {event["event"]["tenant"] for event in events} == {"tenants/initech"}


def test_refusals_keep_their_reason(cli: Cli, key_file: Path, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no image")
    told = error(cli("detect", str(tmp_path / "text.jpg"), "--model=faces", key_file=key_file))
    assert (told["code"], told["reason"]) == ("INVALID_ARGUMENT", "IMAGE_NOT_RECOGNIZED")
    for command in (("tenants", "get"), ("keys", "list")):
        assert error(cli(*command, "nobody"))["code"] == "NOT_FOUND"
    assert error(cli("tenants", "create", "initech"))["code"] == "ALREADY_EXISTS"
    assert error(cli("tenants", "list", key_file=key_file))["code"] == "PERMISSION_DENIED"
