"""Other people's tools, unmodified."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from facetmesh.cli.mesh.home import Home

from .conftest import FACES, Mesh
from .rig import Cli

if TYPE_CHECKING:
    from collections.abc import Callable

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.fixture(scope="session")
def grpcurl(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs grpcurl, built from its Go module."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("Go is not installed: with it, this test builds grpcurl from tools/grpcurl")
    binary = tmp_path_factory.mktemp("bin") / "grpcurl"
    subprocess.run(
        [go, "build", "-o", str(binary), "github.com/fullstorydev/grpcurl/cmd/grpcurl"],
        cwd=TOOLS / "grpcurl", check=True,
    )

    def run(*arguments: str, sent: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(binary), "-plaintext", "-max-time", "30", *arguments],
            input=sent, capture_output=True, text=True, check=False,
        )

    return run


@pytest.mark.full
def test_grpcurl_lists_and_calls(
    mesh: Mesh, group: bytes, grpcurl: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    listed = grpcurl(mesh.endpoints.detection, "list").stdout.split()
    assert "facetmesh.detection.v1.DetectionService" in listed
    described = grpcurl(mesh.endpoints.detection, "describe", "facetmesh.detection.v1.DetectRequest").stdout
    assert "bytes image = 2" in described
    with mesh.client(mesh.tenant("acme")) as client:
        token = client.token().access_token
    request = json.dumps({
        "model": "tenants/acme/models/faces", "image": base64.b64encode(group).decode(), "labels": FACES,
    })  # fmt: skip
    method = "facetmesh.detection.v1.DetectionService/Detect"
    bearer = ("-H", f"authorization: Bearer {token}")
    answer = grpcurl(*bearer, "-d", "@", mesh.endpoints.detection, method, sent=request)
    assert answer.returncode == 0, answer.stderr
    assert len(json.loads(answer.stdout)["detections"]) == 6
    refused = grpcurl("-d", "@", mesh.endpoints.detection, method, sent=request)
    assert refused.returncode != 0
    assert "Unauthenticated" in refused.stderr
    assert "TOKEN_MISSING" in refused.stderr


@pytest.mark.full
def test_transparency_devs_fsck_reads_our_export(mesh: Mesh, tmp_path: Path) -> None:
    """Of the log's files it checks the signature and every tile, with code that shares nothing with ours."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("Go is not installed: with it, this test builds tools/tessera")
    binary, log, key = tmp_path / "tessera", tmp_path / "log", mesh.home / "log.vkey"
    subprocess.run([go, "build", "-o", str(binary), "."], cwd=TOOLS / "tessera", check=True)
    mesh.tenant("acme")
    Cli(Home(mesh.home)).ok("audit", "export-log", str(log))

    def check() -> subprocess.CompletedProcess[str]:
        return subprocess.run([binary, "check", log, key], capture_output=True, text=True, check=False)

    assert check().returncode == 0, check().stderr
    tile = next(file for file in (log / "tile" / "0").rglob("*") if file.is_file())
    data = tile.read_bytes()
    tile.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    assert check().returncode == 1
