"""`facetmesh audit …`: the log as a whole, for who runs it and for who watches it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from facetmesh.cli import output
from facetmesh.cli.logkey import log_key
from facetmesh.cli.options import options
from facetmesh.kit.errors import DeadlineExceeded, FacetmeshError, FailedPrecondition, Internal, Unavailable
from facetmesh.verify import Monitor, VerificationError, open_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.table import Table

    from facetmesh.cli.options import Options
    from facetmesh.client import Client

LOG_URL = "FACETMESH_LOG_URL"
ROLLED_BACK, FORKED, STALLED, UNSIGNED = 3, 4, 5, 6
"""Exit codes of `monitor`."""
_CODES = {"LOG_ROLLED_BACK": ROLLED_BACK, "LOG_FORKED": FORKED}
_WIDTH = 256
LogKey = Annotated[
    Path | None,
    typer.Option(
        "--log-key", help="The file with the log's verifier key; by default the mesh's on this machine.", dir_okay=False
    ),
]


def fsck(
    context: typer.Context,
    *,
    url: Annotated[
        str | None, typer.Option(help="The log in PostgreSQL; libpq finds the password.", envvar=LOG_URL),
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="The log in a file; by default the state folder's.", dir_okay=False)
    ] = None,
) -> None:
    """Compute the whole log anew from its store, and name what is not as it was written. Exit code 1 then."""
    chosen = options(context)
    home = chosen.home.path
    log = file or home / "audit.db"
    if not url and not log.exists():
        raise FailedPrecondition(f"There is no log at {log}.", reason="LOG_MISSING")
    command = [sys.executable, "-P", "-m", "facetmesh.audit.offline", *([f"--url={url}"] if url else [f"--log={log}"])]
    for option, path in (("--secrets", home / "secrets" / "audit.json"), ("--state", home / "sidecar.db")):
        if path.exists():
            command.append(f"{option}={path}")
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own module
    if done.returncode:
        raise Internal(done.stderr.strip()[-500:] or "The log cannot be checked.", reason="FSCK_FAILED")
    found = json.loads(done.stdout)
    problems = found["problems"]
    view: str | Table
    if problems:
        view = output.table(("where", "what"), [(one["where"], one["what"]) for one in problems])
    else:
        opened = "" if found["opened"] else ", not opened: their keys are out of reach"
        view = f"{found['size']} entries, all as they were written{opened}\nroot hash {found['root']}"
    output.answer(chosen, found, view)
    if problems:
        raise typer.Exit(1)


def monitor(
    context: typer.Context,
    state: Annotated[Path, typer.Argument(help="Where the checkpoints are kept that were seen.", dir_okay=False)],
    *,
    log_key_file: LogKey = None,
    every_s: Annotated[float, typer.Option(help="How often the log is asked.", min=0.1)] = 30,
    stall_s: Annotated[float, typer.Option(help="After how long without growth it counts as stalled.", min=1)] = 86_400,
    once: Annotated[bool, typer.Option("--once", help="Ask once and end, as from cron.")] = False,
) -> None:
    """Follow a log from outside; end with a shout when it does what a log must not.

    Exit code 3: it was rolled back. 4: it forked. 5: it has stalled. 6: its signature is wrong.

    While it cannot be reached this waits; after --stall-s that counts as stalled too. Keep the verifier key and the
    checkpoints where the log's operator cannot change them.
    """
    chosen = options(context)
    try:
        watching = Monitor(log_key(chosen, log_key_file), state)
        began = time.time()
        with chosen.public_client() as client:
            while True:
                _look(chosen, watching, client, began, stall_s)
                if once:
                    return
                time.sleep(every_s)
    except VerificationError as error:
        output.complain(FailedPrecondition(error.message, reason=error.reason), as_json=chosen.json)
        raise typer.Exit(_CODES.get(error.reason, UNSIGNED)) from None


def export_log(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="Where the files go; files that are there are not fetched again.")],
    *,
    log_key_file: LogKey = None,
) -> None:
    """Copy the whole log as files (C2SP tlog-tiles), for other people's tools. It has no events, only commitments."""
    chosen = options(context)
    with chosen.public_client() as client:
        note = client.checkpoint().note
        try:
            checkpoint = open_checkpoint(note, log_key(chosen, log_key_file))
        except VerificationError as error:
            raise FailedPrecondition(error.message, reason=error.reason) from error
        paths = tile_paths(checkpoint.size)
        for path in paths:
            _fetch(client.log_file, path, folder / path)
    (folder / "checkpoint").write_text(note)
    view = f"{checkpoint.size} entries in {len(paths)} files in {folder}"
    output.answer(chosen, {"size": checkpoint.size, "files": len(paths), "folder": str(folder)}, view)


def tile_paths(size: int) -> Sequence[str]:
    """The files of a log of this many entries, after C2SP's tlog-tiles."""
    paths = []
    for kind, count in _levels(size):
        whole, rest = divmod(count, _WIDTH)
        paths += [f"tile/{kind}/{_number(number)}" for number in range(whole)]
        if rest:
            paths.append(f"tile/{kind}/{_number(whole)}.p/{rest}")
    return paths


def _levels(size: int) -> list[tuple[str, int]]:
    """The kinds of tiles, and how many hashes or entries there are of each."""
    levels, level, count = [("entries", size)], 0, size
    while count:
        levels.append((str(level), count))
        level, count = level + 1, count // _WIDTH
    return levels


def _number(number: int) -> str:
    digits = f"{number:03}"
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    groups = [digits[at : at + 3] for at in range(0, len(digits), 3)]
    return "/".join([*(f"x{group}" for group in groups[:-1]), groups[-1]])


def _fetch(fetch: Callable[[str], bytes], path: str, file: Path) -> None:
    if file.exists():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    scratch = file.with_name(f"{file.name}.part")
    scratch.write_bytes(fetch(path))
    os.replace(scratch, file)  # noqa: PTH105 - all or nothing


def _look(chosen: Options, watching: Monitor, client: Client, began: float, stall_s: float) -> None:
    """Asks the log once.

    Raises:
        VerificationError: The log is not what it was.
        Exit: It has stalled.
    """
    try:
        before = watching.seen[-1].checkpoint.size if watching.seen else None
        checkpoint = watching.check(client.checkpoint().note, _prover(client))
    except (Unavailable, DeadlineExceeded) as error:
        output.note(f"the log does not answer: {error.reason}")
    else:
        if checkpoint.size != before:
            line = f"{checkpoint.size} entries, root hash {checkpoint.root.hex()}"
            output.answer(chosen, {"size": checkpoint.size, "root_hash": checkpoint.root.hex()}, line)
    idle_s = watching.idle_s() if watching.seen else time.time() - began
    if idle_s > stall_s:
        stalled = FailedPrecondition(f"The log has not grown for {idle_s:.0f} s.", reason="LOG_STALLED")
        output.complain(stalled, as_json=chosen.json)
        raise typer.Exit(STALLED)


def _prover(client: Client) -> Callable[[int, int], Sequence[bytes]]:
    def prove(old_size: int, new_size: int) -> Sequence[bytes]:
        try:
            return client.consistency_proof(old_size, new_size).hashes
        except (Unavailable, DeadlineExceeded):
            raise
        except FacetmeshError as error:
            raise VerificationError("LOG_FORKED", f"The log proves no growth: {error.message}") from None

    return prove
