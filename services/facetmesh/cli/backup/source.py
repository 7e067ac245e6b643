"""A backup to be read: a folder or an archive, every file of it checked against the manifest."""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from facetmesh.cli.backup import archive, manifest, sealed
from facetmesh.cli.backup.manifest import Entry, Manifest
from facetmesh.kit.errors import FailedPrecondition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What a backup held."""

    manifest: Manifest
    manifest_text: bytes
    """As it was written: the sealed secrets are bound to it."""
    sealed: bytes | None
    """The sealed secrets; None when the backup has none."""


def unpack(backup: Path, folder: Path, progress: Callable[[str, int, int], None]) -> Unpacked:
    """Writes a backup's files below folder.

    Args:
        backup: A backup's folder or archive, or a folder of backups, of which the newest is taken.
        folder: Where to; it is there and empty.
        progress: Is told how many bytes of how many are done.

    Raises:
        FailedPrecondition: BACKUP_MISSING; BACKUP_DAMAGED names the file that is not what the manifest says;
            what Manifest.load raises.
    """
    with _files(backup) as files:
        text = _first(files, backup)
        made = Manifest.load(text)
        secrets: bytes | None = None
        done: set[str] = set()
        size = 0
        for name, _, content in files:
            if name == sealed.NAME:
                secrets = content.read(sealed.MAX_BYTES)
                continue
            if name not in made.files or name in done:
                raise _damaged(backup, f"{name} is in it, and the manifest does not say so")
            target = folder / name
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if _copied(content, target, made.files[name].size) != made.files[name]:
                raise _damaged(backup, f"{name} is not what the manifest says")
            done.add(name)
            size += made.files[name].size
            progress("reading", size, made.size)
    if missing := made.files.keys() - done:
        raise _damaged(backup, f"it lacks {min(missing)}")
    return Unpacked(made, text, secrets)


@contextmanager
def _files(backup: Path) -> Iterator[Iterator[tuple[str, int, IO[bytes]]]]:
    if backup.is_file():
        with archive.members(backup) as found:
            yield found
        return
    folder = newest(backup)
    if folder is None:
        raise FailedPrecondition(f"There is no backup at {backup}.", reason="BACKUP_MISSING")
    yield _each(folder)


def newest(folder: Path) -> Path | None:
    """The backup in folder: itself, or the newest of those in it; None when there is none."""
    if (folder / manifest.NAME).exists():
        return folder
    return max((made.parent for made in folder.glob(f"[0-9]*Z/{manifest.NAME}")), default=None)


def _each(folder: Path) -> Iterator[tuple[str, int, IO[bytes]]]:
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    for name in sorted(names, key=lambda name: name != manifest.NAME):
        with (folder / name).open("rb") as content:
            yield name, (folder / name).stat().st_size, content


def _first(files: Iterator[tuple[str, int, IO[bytes]]], backup: Path) -> bytes:
    """The manifest's text."""
    name, size, content = next(files, ("", 0, None))
    if content is None or name != manifest.NAME or size > manifest.MAX_BYTES:
        raise _damaged(backup, f"it does not begin with {manifest.NAME}")
    return content.read()


def _copied(content: IO[bytes], target: Path, size: int) -> Entry:
    """Copies a file; stops when it is larger than it should be."""
    digest = hashlib.sha256()
    done = 0
    with target.open("xb") as out:
        target.chmod(0o600)
        while done <= size and (chunk := content.read(_CHUNK_BYTES)):
            digest.update(chunk)
            out.write(chunk)
            done += len(chunk)
    return Entry(digest.hexdigest(), done)


def _damaged(backup: Path, why: str) -> FailedPrecondition:
    return FailedPrecondition(f"{backup} is damaged or was tampered with: {why}.", reason="BACKUP_DAMAGED")
