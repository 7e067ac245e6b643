"""The state folder of a mesh on one machine."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from facetmesh.client.endpoints import state_folder
from facetmesh.kit import errors, files

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

VARIABLE = "FACETMESH_HOME"
_NEEDED_BYTES = 64 << 20
"""Less room than this on its disk, and a start would only fail later and less clearly."""

_LOCK_TRIES = 20
_LOCK_AGAIN_S = 0.025


@dataclass(frozen=True, slots=True)
class Home:
    """Where a mesh keeps what must outlive it."""

    path: Path

    @classmethod
    def default(cls) -> Home:
        """FACETMESH_HOME, else the user's folder for state."""
        return cls(state_folder())

    @property
    def admin_key(self) -> Path:
        """The platform admin's API key, 0600."""
        return self.path / "admin.key"

    @property
    def secrets(self) -> Path:
        """A file of secrets for each service, 0600."""
        return self.path / "secrets"

    @property
    def service_keys(self) -> Path:
        """The services' public keys, for audit."""
        return self.path / "service-keys.json"

    @property
    def log_key(self) -> Path:
        """The audit log's verifier key: what an auditor needs."""
        return self.path / "log.vkey"

    @property
    def endpoints(self) -> Path:
        """The address of each service, while the mesh runs."""
        return self.path / "endpoints.json"

    @property
    def processes(self) -> Path:
        """The processes of the mesh, to find what a killed supervisor left."""
        return self.path / "processes.json"

    @property
    def logs(self) -> Path:
        """A JSON-lines file for each process."""
        return self.path / "logs"

    def prepare(self) -> None:
        """Makes the folder, private to its owner.

        Raises:
            FailedPrecondition: FOLDER_NOT_WRITABLE.
            ResourceExhausted: DISK_FULL.
        """
        with files.explained(self.path, variable=VARIABLE):
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path.chmod(0o700)
            self.logs.mkdir(mode=0o700, exist_ok=True)
            files.write(self.path / ".writable", b"")
            (self.path / ".writable").unlink()
            free = shutil.disk_usage(self.path).free
        if free < _NEEDED_BYTES:
            raise errors.ResourceExhausted(
                f"The disk of {self.path} has {free >> 20} MiB left and {_NEEDED_BYTES >> 20} are needed: "
                f"make room, or set {VARIABLE} to another folder.", reason="DISK_FULL",
            )

    @contextmanager
    def owned(self) -> Iterator[None]:
        """Makes this process the one that runs the mesh.

        Raises:
            FailedPrecondition: MESH_RUNNING; another one does.
        """
        with (self.path / "mesh.lock").open("a+") as lock:
            if not _locked(lock):
                raise errors.FailedPrecondition(
                    f"A mesh already runs on {self.path}: `facetmesh status` shows it, `facetmesh down` stops it.",
                    reason="MESH_RUNNING",
                )
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            yield

    def owner(self) -> int | None:
        """The process that runs the mesh; None when there is none."""
        try:
            with (self.path / "mesh.lock").open("r+") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    return int(lock.read() or 0) or None
        except FileNotFoundError:
            pass
        return None

    def read(self, path: Path) -> Mapping[str, Any]:
        """The JSON object in one of the folder's files; empty when there is none."""
        try:
            content = json.loads(path.read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return {}
        return content if isinstance(content, dict) else {}

    def write(self, path: Path, content: Mapping[str, Any]) -> None:
        """Writes a JSON object into one of the folder's files, all or nothing."""
        files.write(path, json.dumps(content, indent=2) + "\n", mode=files.PRIVATE)


def _locked(lock: IO[str]) -> bool:
    """Whether a file is locked for us now. Who only looks who has it holds it for a moment: that one is waited for."""
    for _ in range(_LOCK_TRIES):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_LOCK_AGAIN_S)
        else:
            return True
    return False
