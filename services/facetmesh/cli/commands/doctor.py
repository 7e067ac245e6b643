"""`facetmesh doctor`."""

from __future__ import annotations

from dataclasses import asdict

import typer
from rich.text import Text

from facetmesh.cli import output
from facetmesh.cli.checks import Verdict, checks
from facetmesh.cli.options import options

_STYLES = {Verdict.OK: "green", Verdict.WARN: "yellow", Verdict.FAIL: "bold red"}


def doctor(context: typer.Context) -> None:
    """Show what this machine has and lacks, and what to do about it. Exit code 1 when the mesh cannot run."""
    chosen = options(context)
    with output.err.status("looking"):
        found = list(checks(chosen.home))
    rows = ((Text(one.verdict, _STYLES[one.verdict]), one.name, one.found, one.advice) for one in found)
    view = output.table(("", "what", "found", "what to do"), rows)
    output.answer(chosen, {"checks": [asdict(one) for one in found]}, view)
    if any(one.verdict is Verdict.FAIL for one in found):
        raise typer.Exit(1)
