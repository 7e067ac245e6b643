"""Turns protos/ into Python, lints it, and compares it with the last release.

Run by `make protos`, `make lint` and CI, with the environment of
requirements/protos.txt: the oldest grpcio-tools that facetmesh supports, because
generated code refuses runtimes older than its generator.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
SOURCES = ROOT / "services"
GENERATED = '"""Generated from protos/; edit those and run `make protos`."""\n'
THIRD_PARTY = (
    "buf/validate/validate.proto", "envoy/service/auth/v3/external_auth.proto",
    "externalscaler/externalscaler.proto", "inference/inference.proto",
)  # fmt: skip
"""Other people's APIs. Their Python lies below facetmesh, because `buf` or `envoy` at the top may belong to others."""


def ours() -> list[str]:
    """Our own proto files, relative to protos/."""
    return sorted(str(p.relative_to(PROTOS)) for p in (PROTOS / "facetmesh").rglob("*.proto"))


def include_folder(scratch: Path) -> Path:
    """A folder with googleapis' protos under the paths that their imports name."""
    spec = importlib.util.find_spec("google.longrunning")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("googleapis-common-protos is not installed: run `make protos`")
    google = Path(next(iter(spec.submodule_search_locations))).parent
    include = scratch / "include"
    for folder in ("api", "rpc", "longrunning"):
        for proto in (google / folder).rglob("*.proto"):
            # The package stores operations.proto under a name of its own.
            name = proto.name.replace("operations_proto", "operations")
            target = include / "google" / proto.parent.relative_to(google) / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(proto, target)
    return include


def protoc(scratch: Path, *arguments: str) -> None:
    """Runs the compiler over arguments."""
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTOS}", f"-I{include_folder(scratch)}"]
    subprocess.run([*command, *arguments], check=True, cwd=ROOT)  # noqa: S603 - our own compiler


def generate(target: Path, scratch: Path) -> None:
    """Writes the generated code of every proto below target/facetmesh."""
    target.mkdir(parents=True, exist_ok=True)
    everything = [*ours(), *THIRD_PARTY]
    protoc(scratch, f"--python_out={target}", f"--mypy_out=quiet:{target}", *everything)
    with_services = [p for p in everything if re.search(r"^service ", (PROTOS / p).read_text(), re.MULTILINE)]
    protoc(scratch, f"--grpc_python_out={target}", f"--mypy_grpc_out=quiet:{target}", *with_services)
    for package in {proto.partition("/")[0] for proto in THIRD_PARTY}:
        shutil.move(target / package, target / "facetmesh" / package)
        for path in (target / "facetmesh").rglob("*_pb2*.py*"):
            path.write_text(moved(path.read_text(), package))
        for folder in (target / "facetmesh" / package).rglob("*"):
            if folder.is_dir():
                (folder / "__init__.py").write_text(GENERATED)
        (target / "facetmesh" / package / "__init__.py").write_text(GENERATED)
    for folder in {p.parent for p in (target / "facetmesh").rglob("*_pb2.py")}:
        (folder / "__init__.py").write_text(GENERATED)


def moved(text: str, package: str) -> str:
    """Generated code whose imports of a top-level package go to where that lies below facetmesh."""
    text = re.sub(rf"\b(from|import) {package}\b", rf"\1 facetmesh.{package}", text)
    return re.sub(rf"(?<![\w./]){package}((?:\.\w+)+_pb2)", rf"facetmesh.{package}\1", text)


def generated_files(target: Path) -> dict[str, bytes]:
    """The generated files below target, by relative path."""
    found = (target / "facetmesh").rglob("*_pb2*.py*")
    return {str(p.relative_to(target)): p.read_bytes() for p in found if p.suffix in {".py", ".pyi"}}


def drift(scratch: Path) -> list[str]:
    """The generated files that differ from what protos/ would make now."""
    generate(scratch / "fresh", scratch)
    fresh, committed = generated_files(scratch / "fresh"), generated_files(SOURCES)
    return sorted(name for name in fresh.keys() | committed.keys() if fresh.get(name) != committed.get(name))


def image(scratch: Path) -> Path:
    """A descriptor set of all protos, which buf reads in place of its registry."""
    path = scratch / "image.binpb"
    protoc(scratch, "--include_imports", "--include_source_info", f"-o{path}", *ours())
    return path


def buf(*arguments: str) -> None:
    """Runs buf, and ends with its code when it finds something."""
    done = subprocess.run([shutil.which("buf") or "buf", *arguments], check=False, cwd=ROOT)  # noqa: S603
    if done.returncode:
        sys.exit(done.returncode)


def breaking(scratch: Path, against: str) -> None:
    """Compares protos/ with those of the git revision against."""
    old = scratch / "old"
    old.mkdir()
    archive = subprocess.run(  # noqa: S603 - a revision that the caller names
        ["git", "archive", against, "protos"],  # noqa: S607
        cwd=ROOT, check=True, capture_output=True,
    ).stdout
    subprocess.run(["tar", "-x", "-C", str(old)], input=archive, check=True)  # noqa: S603, S607
    files = sorted(str(p.relative_to(old / "protos")) for p in (old / "protos/facetmesh").rglob("*.proto"))
    path = scratch / "old.binpb"
    subprocess.run(  # noqa: S603 - our own compiler
        [sys.executable, "-m", "grpc_tools.protoc", f"-I{old / 'protos'}", f"-I{include_folder(scratch)}",
         "--include_imports", f"-o{path}", *files],
        check=True, cwd=ROOT,
    )
    buf("breaking", str(image(scratch)), "--against", str(path))


def main() -> None:
    """Does what the command line asks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=["generate", "check", "lint", "breaking"])
    parser.add_argument("--against", default="", help="the git revision of the last release, for breaking")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        if arguments.what == "generate":
            generate(scratch / "fresh", scratch)
            shutil.copytree(scratch / "fresh", SOURCES, dirs_exist_ok=True)
        elif arguments.what == "check":
            if changed := drift(scratch):
                sys.exit("generated code differs from protos/; run `make protos`:\n  " + "\n  ".join(changed))
        elif arguments.what == "lint":
            buf("lint", str(image(scratch)))
        elif arguments.against:
            breaking(scratch, arguments.against)
        else:
            sys.stdout.write("no release yet to compare with\n")


if __name__ == "__main__":
    main()
