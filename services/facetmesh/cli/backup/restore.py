"""Brings a state folder back from a backup: all of it, checked, or nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from facetmesh.cli.backup import sealed
from facetmesh.cli.backup.contents import LOG, SECRETS, STATE
from facetmesh.cli.backup.source import Unpacked, unpack
from facetmesh.cli.mesh import secrets
from facetmesh.cli.mesh.home import Home
from facetmesh.cli.mesh.ports import SERVICES
from facetmesh.kit import files
from facetmesh.kit.errors import FailedPrecondition
from facetmesh.verify import VerificationError, open_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_SECRET_FILES = frozenset(f"{service}.json" for service in SERVICES)


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be restored, and where."""

    backup: Path
    """A folder or an archive, or a folder of backups, of which the newest is taken."""
    home: Home
    """Where to; it must be empty, or not there."""
    phrase: bytes | None = None
    """Opens the sealed secrets."""
    secrets: Path | None = None
    """A folder with the secrets, for a backup without."""
    progress: Callable[[str, int, int], None] = lambda _what, _done, _all: None
    """Is told what is being done, and how many bytes of how many are."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What was restored."""

    taken: str
    """When the backup was taken, ISO 8601 in UTC."""
    files: int
    size: int
    """In bytes."""
    log_size: int
    """Entries in the log."""
    checkpoint_size: int
    """Entries in the newest log that the backup knows of; 0 when it was taken while no mesh served."""


def restore(job: Job) -> Restored:
    """Restores a backup. Blocks.

    Raises:
        FailedPrecondition: HOME_NOT_EMPTY; PASSPHRASE_MISSING, SECRETS_MISSING or SECRETS_MISMATCH; LOG_DAMAGED
            names what is wrong with the log; what `source.unpack`, `sealed.unseal` and `mesh.secrets.ensure` raise.
    """
    home = job.home.path
    if home.exists() and any(home.iterdir()):
        raise FailedPrecondition(
            f"{home} is not empty: restore into another folder (--home), and nothing is overwritten.",
            reason="HOME_NOT_EMPTY",
        )
    home.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=home.parent, prefix=f".{home.name}.restore-"))
    try:
        unpacked = unpack(job.backup, scratch, job.progress)
        _put_secrets(job, unpacked, scratch)
        _derive(Home(scratch))
        job.progress("checking the log", unpacked.manifest.size, unpacked.manifest.size)
        log_size, checkpoint_size = _check_log(unpacked, scratch)
        files.settle(scratch)
        scratch.rename(home)  # over an empty folder too
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    made = unpacked.manifest
    return Restored(made.taken, len(made.files), made.size, log_size, checkpoint_size)


def _derive(home: Home) -> None:
    """Writes what follows from the secrets, and checks it against what the backup says of it."""
    said = home.log_key.read_text()
    secrets.ensure(home)
    if home.log_key.read_text() != said:
        raise FailedPrecondition("The secrets are not those of this backup.", reason="SECRETS_MISMATCH")


def _put_secrets(job: Job, unpacked: Unpacked, scratch: Path) -> None:
    (scratch / SECRETS).mkdir(mode=0o700)
    for name, text in _secrets(job, unpacked).items():
        if name not in _SECRET_FILES:
            raise FailedPrecondition(f"{name!r} is no service's file of secrets.", reason="SECRETS_INVALID")
        files.write(scratch / SECRETS / name, text, mode=files.PRIVATE)


def _secrets(job: Job, unpacked: Unpacked) -> Mapping[str, str]:
    if job.secrets is not None:
        return {path.name: path.read_text() for path in job.secrets.glob("*.json")}
    if unpacked.sealed is None:
        raise FailedPrecondition(
            "The backup was taken without its secrets: give the folder that has them with --secrets.",
            reason="SECRETS_MISSING",
        )
    if job.phrase is None:
        raise FailedPrecondition(
            "The backup's secrets are sealed: give the passphrase with --passphrase-file.", reason="PASSPHRASE_MISSING",
        )
    return sealed.unseal(unpacked.sealed, job.phrase, unpacked.manifest_text)


def _check_log(unpacked: Unpacked, scratch: Path) -> tuple[int, int]:
    """Checks the log against itself, its events, and the newest checkpoint; returns the sizes of both."""
    if LOG not in unpacked.manifest.files:
        return 0, 0
    command = [
        sys.executable, "-P", "-m", "facetmesh.audit.offline", f"--log={scratch / LOG}",
        f"--secrets={scratch / SECRETS / 'audit.json'}",
    ]
    if STATE in unpacked.manifest.files:  # else the keys that open its events are in Redis, which does not run yet
        command.append(f"--state={scratch / STATE}")
    size = 0
    if note := unpacked.manifest.checkpoint:
        try:
            checkpoint = open_checkpoint(note, (scratch / "log.vkey").read_text().strip())
        except VerificationError as error:
            raise FailedPrecondition(
                f"The backup's checkpoint does not hold: {error.message}", reason="LOG_DAMAGED",
            ) from error
        size = checkpoint.size
        command += [f"--size={size}", f"--root={checkpoint.root.hex()}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - ourselves
    if done.returncode:
        raise FailedPrecondition(f"The log cannot be read: {done.stderr.strip()}", reason="LOG_DAMAGED")
    found = json.loads(done.stdout)
    if problems := found["problems"]:
        first = problems[0]
        raise FailedPrecondition(
            f"The log is damaged in {len(problems)} places, the first at {first['where']}: {first['what']}.",
            reason="LOG_DAMAGED",
        )
    return found["size"], size
