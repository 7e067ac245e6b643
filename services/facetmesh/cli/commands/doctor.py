"""`facetmesh doctor`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.text import Text

from facetmesh.cli import output
from facetmesh.cli.checks import Verdict, checks
from facetmesh.cli.options import options

_STYLES = {Verdict.OK: "green", Verdict.WARN: "yellow", Verdict.FAIL: "bold red"}


def doctor(
    context: typer.Context,
    *,
    require: Annotated[
        list[str] | None, typer.Option(help="Look at this alone, such as gpu, and insist on it; repeatable.")
    ] = None,
) -> None:
    """Show what this machine has and lacks, and what to do about it. Exit code 1 when the mesh cannot run.

    What is required must be there, even where the mesh would run without.
    """
    chosen = options(context)
    with output.err.status("looking"):
        found = list(checks(chosen.home, require or ()))
    rows = ((Text(one.verdict, _STYLES[one.verdict]), one.name, one.found, one.advice) for one in found)
    view = output.table(("", "what", "found", "what to do"), rows)
    output.answer(chosen, {"checks": [asdict(one) for one in found]}, view)
    wanting = (Verdict.FAIL, Verdict.WARN) if require else (Verdict.FAIL,)
    if any(one.verdict in wanting for one in found):
        raise typer.Exit(1)
