"""`facetmesh backup` and `facetmesh restore`."""

from __future__ import annotations

import shutil
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from facetmesh.cli import output
from facetmesh.cli.backup import archive, contents, sealed, series
from facetmesh.cli.backup import restore as restoring
from facetmesh.cli.backup.take import Job, take
from facetmesh.cli.options import options
from facetmesh.kit.errors import FacetmeshError, FailedPrecondition, InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from facetmesh.cli.backup.manifest import Manifest
    from facetmesh.cli.options import Options

_UNITS = {"s": 1, "m": 60, "h": 3600}
_SHORTEST_S = 1
PassphraseFile = Annotated[
    Path | None,
    typer.Option(help="A file of yours alone, whose first line seals the secrets.", exists=True, dir_okay=False),
]


def backup(
    context: typer.Context,
    target: Annotated[
        Path, typer.Argument(help="Where to: a new folder, a new file that ends in .tar, or with --every a folder."),
    ],
    *,
    passphrase_file: PassphraseFile = None,
    without_secrets: Annotated[
        bool, typer.Option("--without-secrets", help="Leave the secrets out: a secret store of yours has them."),
    ] = False,
    every: Annotated[
        str | None, typer.Option(help="Take one each so often, such as 30s or 10m, until interrupted."),
    ] = None,
    keep: Annotated[int, typer.Option(help="With --every: how many stay.", min=1, max=10_000)] = 10,
) -> None:
    """Copy state, audit log, blobs and wrapped keys, consistently, while the mesh serves."""
    chosen = options(context)
    if (passphrase_file is None) == (not without_secrets):
        raise InvalidArgument(
            "The backup holds keys that only the mesh's secrets open. Seal the secrets into it with --passphrase-file "
            "FILE, or say --without-secrets if you keep a copy of them elsewhere.", reason="SECRETS_UNDECIDED",
        )
    phrase = sealed.passphrase(passphrase_file) if passphrase_file else None
    if every is not None:
        _go_on(chosen, target, phrase, _seconds(every), keep)
        return
    if target.exists():
        raise FailedPrecondition(f"{target} is there already, and stays as it is.", reason="TARGET_EXISTS")
    began = time.monotonic()
    with _progress() as progress:
        made = _to_archive(chosen, target, phrase, progress) if target.suffix == archive.SUFFIX else take(
            Job(chosen.home, target, phrase, _checkpoint(chosen), progress=progress),
        )
    _tell(chosen, target, made, took_s=time.monotonic() - began, secrets=phrase is not None)


def restore(
    context: typer.Context,
    source: Annotated[
        Path, typer.Argument(help="A backup's folder or file, or a folder of --every: the newest.", exists=True),
    ],
    *,
    passphrase_file: PassphraseFile = None,
    secrets: Annotated[
        Path | None, typer.Option(help="The secrets' folder, for a backup without.", exists=True, file_okay=False),
    ] = None,
) -> None:
    """Bring an empty state folder up from a backup. What is damaged or changed is refused by name."""
    chosen = options(context)
    phrase = sealed.passphrase(passphrase_file) if passphrase_file else None
    began = time.monotonic()
    with _progress() as progress:
        made = restoring.restore(restoring.Job(source, chosen.home, phrase, secrets, progress))
    took = time.monotonic() - began
    data = {
        "home": str(chosen.home.path), "taken": made.taken, "files": made.files, "bytes": made.size,
        "log_size": made.log_size, "checkpoint_size": made.checkpoint_size, "seconds": round(took, 3),
    }  # fmt: skip
    view = output.facts({
        "state": chosen.home.path, "taken (UTC)": made.taken, "files": f"{made.files}, {made.size:,} bytes",
        "audit log": f"{made.log_size} entries, whole; continues the checkpoint of {made.checkpoint_size}"
        if made.log_size else "not in this backup",
        "took": f"{took:.1f} s", "next": "facetmesh up",
    })  # fmt: skip
    output.answer(chosen, data, view)


def _go_on(chosen: Options, folder: Path, phrase: bytes | None, every_s: float, keep: int) -> None:
    """Takes backups until interrupted; one that fails is told, and the next is tried."""
    while True:
        began = time.monotonic()
        try:
            one = series.take_next(Job(chosen.home, folder, phrase, _checkpoint(chosen)), folder, keep)
        except (FacetmeshError, OSError) as error:
            output.note(f"no backup was taken: {error}")
        else:
            _tell(chosen, one.folder, one.manifest, took_s=one.seconds, secrets=phrase is not None)
        time.sleep(max(0.0, every_s - (time.monotonic() - began)))


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


def _seconds(text: str) -> float:
    try:
        found = float(text[:-1]) * _UNITS[text[-1]] if text[-1:] in _UNITS else float(text)
    except ValueError:
        found = 0.0
    if not found >= _SHORTEST_S:
        raise InvalidArgument(f'--every takes a time such as 30s, 10m or 1h, not "{text}".', reason="INTERVAL_INVALID")
    return found


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on a terminal; nothing elsewhere."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=output.err, transient=True, disable=not output.err.is_terminal) as bar:
        task = bar.add_task("starting", total=None)
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total or None)
