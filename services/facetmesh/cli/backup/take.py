"""Takes a consistent copy of a state folder while its mesh serves.

The order is what makes it consistent:

1. Deletions of blobs are held up (`kit.holds`).
2. The moment of the services' journals is fixed, then the state's, then the log's. An event that was accepted before is
   in a journal, in the state's queue or in the log, and audit drops a repeat: none is lost, none comes twice.
3. Every blob is linked. What the state refers to was there before it, and has not been deleted since.
4. The hold ends. The rest takes as long as it takes: what is copied does not change any more.
5. The wrapped data keys are taken as they are by now: the log may have used newer ones than the state had, and one
   that was destroyed meanwhile stays destroyed.
"""

from __future__ import annotations

import fcntl
import shutil
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import facetmesh
from facetmesh.cli.backup import manifest, redis, sealed, sqlite
from facetmesh.cli.backup.contents import (
    JOURNALS,
    LOG,
    PUBLIC,
    REDIS_CONFIGURATION,
    REDIS_STATE,
    SECRETS,
    STATE,
    blob_folders,
    is_on_redis,
    log_is_here,
)
from facetmesh.cli.backup.links import Links
from facetmesh.cli.backup.manifest import Entry, Manifest
from facetmesh.kit import files
from facetmesh.kit.errors import FailedPrecondition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from facetmesh.cli.mesh.home import Home



@dataclass(frozen=True, slots=True)
class Job:
    """A backup to be taken."""

    home: Home
    folder: Path
    """Where it goes. It must not be there yet, and is complete once its manifest is there."""
    phrase: bytes | None
    """Seals the secrets; None leaves them out."""
    checkpoint: str = ""
    """The log's newest checkpoint; "" when the mesh does not serve."""
    before: Path | None = None
    """An earlier backup, whose blobs are linked rather than copied."""
    progress: Callable[[str, int, int], None] = lambda _what, _done, _all: None
    """Is told what is being copied, and how many bytes of how many are done."""


def take(job: Job) -> Manifest:
    """Takes a backup. Blocks.

    Raises:
        FailedPrecondition: STATE_MISSING; BACKUP_RUNNING; FILE_UNREADABLE.
        OSError: The backup cannot be written. What was written of it is removed.
    """
    state = REDIS_CONFIGURATION if is_on_redis(job.home) else STATE
    if not (job.home.path / state).exists():
        raise FailedPrecondition(
            f"There is no {state} in {job.home.path}: no mesh has run there.", reason="STATE_MISSING",
        )
    with _alone(job.home):
        job.folder.mkdir(mode=0o700, parents=True)
        try:
            return _taken(job)
        except BaseException:
            shutil.rmtree(job.folder, ignore_errors=True)
            raise


def _taken(job: Job) -> Manifest:
    entries = _blobs_and_databases(job)
    for name in PUBLIC:
        shutil.copyfile(job.home.path / name, job.folder / name)
        entries[name] = Entry.of(job.folder / name)
    made = Manifest(
        facetmesh=facetmesh.__version__, taken=datetime.now(UTC).isoformat(timespec="seconds"),
        checkpoint=job.checkpoint, files=entries,
    )
    text = made.dump()
    Manifest.load(text)  # what could not be restored is no backup
    if job.phrase is not None:
        secrets = {path.name: path.read_text() for path in sorted((job.home.path / SECRETS).glob("*.json"))}
        files.write(job.folder / sealed.NAME, sealed.seal(secrets, job.phrase, text), mode=files.PRIVATE)
    files.settle(job.folder)  # before there is a manifest to say that it is whole
    files.write(job.folder / manifest.NAME, text, mode=files.PRIVATE)
    return made


def _blobs_and_databases(job: Job) -> dict[str, Entry]:
    home = job.home.path
    with ExitStack() as stack:
        links = stack.enter_context(Links(blob_folders(job.home), home))
        snapshots: dict[str, sqlite.Snapshot | redis.Snapshot] = {}
        on_redis = is_on_redis(job.home)
        with links.held():
            for name in JOURNALS:
                if (home / name).exists():
                    snapshots[name] = stack.enter_context(sqlite.Snapshot(home / name))
            if on_redis:
                snapshots[REDIS_STATE] = stack.enter_context(redis.Snapshot(home / REDIS_CONFIGURATION))
            else:
                snapshots[STATE] = stack.enter_context(sqlite.Snapshot(home / STATE))
            if log_is_here() and (home / LOG).exists():
                snapshots[LOG] = stack.enter_context(sqlite.Snapshot(home / LOG))
            links.make()
        for name, snapshot in snapshots.items():
            (job.folder / name).parent.mkdir(mode=0o700, exist_ok=True)
            snapshot.copy(job.folder / name, partial(job.progress, name))
            (job.folder / name).chmod(files.PRIVATE)
        if on_redis:
            redis.renew(job.folder / REDIS_STATE, home / REDIS_CONFIGURATION, match=b"*||data-keys/*")
        else:
            sqlite.renew(job.folder / STATE, home / STATE, table="state", like="%||data-keys/%")
        databases = {name: Entry.of(job.folder / name) for name in snapshots}
        return {**databases, **links.copy(job.folder, job.before, job.progress)}


@contextmanager
def _alone(home: Home) -> Iterator[None]:
    with (home.path / "backup.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FailedPrecondition(
                f"Another backup of {home.path} is being taken.", reason="BACKUP_RUNNING",
            ) from None
        yield
