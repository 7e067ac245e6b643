"""Backups and restores on a terminal: progress, and what was done."""

from __future__ import annotations

import shutil
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from facetmesh.cli import output
from facetmesh.cli.backup import archive, contents, restore, sealed, series
from facetmesh.cli.backup.take import Job, take
from facetmesh.kit.errors import FacetmeshError, FailedPrecondition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from facetmesh.cli.backup.manifest import Manifest
    from facetmesh.cli.options import Options


def once(chosen: Options, target: Path, passphrase_file: Path | None) -> None:
    """Takes a backup, as a folder or an archive, and says what is in it.

    Args:
        chosen: The global options.
        target: Where to; it must not be there yet.
        passphrase_file: Seals the secrets; None leaves them out.

    Raises:
        FailedPrecondition: TARGET_EXISTS; what `take` and `sealed.passphrase` raise.
    """
    phrase = _phrase(passphrase_file)
    if target.exists():
        raise FailedPrecondition(f"{target} is there already, and stays as it is.", reason="TARGET_EXISTS")
    began = time.monotonic()
    with _progress() as progress:
        if target.suffix == archive.SUFFIX:
            made = _to_archive(chosen, target, phrase, progress)
        else:
            made = take(Job(chosen.home, target, phrase, _checkpoint(chosen), progress=progress))
    _tell(chosen, target, made, took_s=time.monotonic() - began, secrets=phrase is not None)


def again_and_again(
    chosen: Options, folder: Path, passphrase_file: Path | None, every_s: float, keep: int,
) -> None:
    """Takes backups until interrupted; one that fails is told, and the next is tried."""
    phrase = _phrase(passphrase_file)
    while True:
        began = time.monotonic()
        try:
            one = series.take_next(Job(chosen.home, folder, phrase, _checkpoint(chosen)), folder, keep)
        except (FacetmeshError, OSError) as error:
            output.note(f"no backup was taken: {error}")
        else:
            _tell(chosen, one.folder, one.manifest, took_s=one.seconds, secrets=phrase is not None)
        time.sleep(max(0.0, every_s - (time.monotonic() - began)))


def back(chosen: Options, source: Path, passphrase_file: Path | None, secrets: Path | None) -> None:
    """Restores a backup, and says what was in it.

    Raises:
        FailedPrecondition: What `restore` and `sealed.passphrase` raise.
    """
    phrase = _phrase(passphrase_file)
    began = time.monotonic()
    with _progress() as progress:
        made = restore.restore(restore.Job(source, chosen.home, phrase, secrets, progress))
    took = time.monotonic() - began
    data = {
        "home": str(chosen.home.path), "taken": made.taken, "files": made.files, "bytes": made.size,
        "log_size": made.log_size, "checkpoint_size": made.checkpoint_size, "seconds": round(took, 3),
    }  # fmt: skip
    log = f"{made.log_size} entries, whole; continues the checkpoint of {made.checkpoint_size}"
    view = output.facts({
        "state": chosen.home.path, "taken (UTC)": made.taken, "files": f"{made.files}, {made.size:,} bytes",
        "audit log": log if made.log_size else "not in this backup", "took": f"{took:.1f} s",
        "next": f"{chosen.called} up",
    })  # fmt: skip
    output.answer(chosen, data, view)


def _phrase(file: Path | None) -> bytes | None:
    return sealed.passphrase(file) if file else None


def _to_archive(
    chosen: Options, file: Path, phrase: bytes | None, progress: Callable[[str, int, int], None],
) -> Manifest:
    scratch = Path(tempfile.mkdtemp(dir=file.absolute().parent, prefix=f".{file.name}."))
    try:
        made = take(Job(chosen.home, scratch / "backup", phrase, _checkpoint(chosen), progress=progress))
        archive.pack(scratch / "backup", file, progress)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return made


def _checkpoint(chosen: Options) -> str:
    """The log's newest checkpoint; "" when no mesh serves."""
    if chosen.home.owner() is None:
        return ""
    try:
        with chosen.public_client() as client:
            return str(client.checkpoint().note)
    except FacetmeshError as error:
        output.note(f"without the log's checkpoint, since audit does not answer: {error.message}")
        return ""


def _tell(chosen: Options, target: Path, made: Manifest, *, took_s: float, secrets: bool) -> None:
    left_out = contents.left_out(chosen.home)
    blobs = bool(contents.blob_folders(chosen.home))
    data = {
        "backup": str(target), "taken": made.taken, "files": len(made.files), "bytes": made.size, "secrets": secrets,
        "blobs": blobs, "log": contents.log_is_here(), "left_out": left_out, "seconds": round(took_s, 3),
    }  # fmt: skip
    facts = {
        "backup": target, "taken (UTC)": made.taken, "files": f"{len(made.files)}, {made.size:,} bytes",
        "secrets": "sealed" if secrets else "left out: without them nothing of it can be read",
        **({} if blobs else {"blobs": "left out: the object store keeps them"}),
        **({} if contents.log_is_here() else {"audit log": "left out: back its PostgreSQL up after this"}),
        **({"left out": ", ".join(left_out)} if left_out else {}),
        "took": f"{took_s:.1f} s",
    }  # fmt: skip
    output.answer(chosen, data, output.facts(facts))


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on a terminal; nothing elsewhere."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=output.err, transient=True, disable=not output.err.is_terminal) as bar:
        task = bar.add_task("starting", total=None)
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total or None)
