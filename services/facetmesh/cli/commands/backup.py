"""`facetmesh backup` and `facetmesh restore`. What they do needs the services' packages: imported when called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from facetmesh.cli.options import options
from facetmesh.kit.errors import InvalidArgument

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
    from facetmesh.cli.backup import console  # noqa: PLC0415 - the base install lacks what it needs

    if (passphrase_file is None) == (not without_secrets):
        raise InvalidArgument(
            "The backup holds keys that only the mesh's secrets open. Seal the secrets into it with --passphrase-file "
            "FILE, or say --without-secrets if you keep a copy of them elsewhere.", reason="SECRETS_UNDECIDED",
        )
    if every is None:
        console.once(options(context), target, passphrase_file)
    else:
        console.again_and_again(options(context), target, passphrase_file, _seconds(every), keep)


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
    from facetmesh.cli.backup import console  # noqa: PLC0415 - the base install lacks what it needs

    console.back(options(context), source, passphrase_file, secrets)


def _seconds(text: str) -> float:
    try:
        found = float(text[:-1]) * _UNITS[text[-1]] if text[-1:] in _UNITS else float(text)
    except ValueError:
        found = 0.0
    if not found >= _SHORTEST_S:
        raise InvalidArgument(f'--every takes a time such as 30s, 10m or 1h, not "{text}".', reason="INTERVAL_INVALID")
    return found
