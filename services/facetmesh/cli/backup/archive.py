"""A backup as one file: a tar archive, its manifest first."""

from __future__ import annotations

import tarfile
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

from facetmesh.cli.backup import manifest, sealed
from facetmesh.cli.backup.manifest import Manifest
from facetmesh.kit.errors import FailedPrecondition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SUFFIX = ".tar"


def pack(folder: Path, file: Path, progress: Callable[[str, int, int], None]) -> None:
    """Writes the backup in folder into file, which is whole or not there."""
    made = Manifest.load((folder / manifest.NAME).read_bytes())
    names = [manifest.NAME, *([sealed.NAME] if (folder / sealed.NAME).exists() else []), *sorted(made.files)]
    scratch = file.with_name(f".{file.name}.partial")
    try:
        with tarfile.open(scratch, "w", format=tarfile.PAX_FORMAT) as tar:
            scratch.chmod(0o600)
            done = 0
            for name in names:
                tar.add(folder / name, arcname=name, recursive=False, filter=_anonymous)
                done += made.files[name].size if name in made.files else 0
                progress(file.name, done, made.size)
        scratch.replace(file)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


@contextmanager
def members(file: Path) -> Iterator[Iterator[tuple[str, int, IO[bytes]]]]:
    """The name, the size and the content of each file in the archive, in its order.

    Raises:
        FailedPrecondition: BACKUP_DAMAGED; it is no archive, it ends too early, or it holds what is no file.
    """

    def each(tar: tarfile.TarFile) -> Iterator[tuple[str, int, IO[bytes]]]:
        for member in tar:
            content = tar.extractfile(member) if member.isreg() else None
            if content is None:
                raise FailedPrecondition(f"{file} holds {member.name!r}, which is no file.", reason="BACKUP_DAMAGED")
            yield member.name, member.size, content

    try:
        with tarfile.open(file, "r:") as tar:
            yield each(tar)
    except tarfile.TarError as error:
        raise FailedPrecondition(f"{file} is no backup, or damaged: {error}.", reason="BACKUP_DAMAGED") from error


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member
