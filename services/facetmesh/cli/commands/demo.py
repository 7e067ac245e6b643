"""`facetmesh demo`."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from facetmesh.cli import interrupt, output
from facetmesh.cli.commands.models import catalogue_table
from facetmesh.cli.mesh.layout import Layout, Sidecar
from facetmesh.cli.options import options
from facetmesh.kit import catalog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def demo(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="The folder for pictures and receipts.")] = Path("out/demo"),
    sidecar: Annotated[
        Sidecar, typer.Option(help="Who provides Dapr's API: ours, or one daprd for each service, over Redis."),
    ] = Sidecar.EMBEDDED,
) -> None:
    """Do the whole job once on real photos, with a mesh of its own that is gone afterwards.

    Fetches third-party models and photos at the first run, among them NudeNet, whose AGPL-3.0 this command accepts.
    """
    from facetmesh.cli.demo import DETECTOR, NEEDED, Demo  # noqa: PLC0415 - the base install lacks what it needs

    chosen = options(context)
    licence = catalog.asset(DETECTOR).licence
    if not all(catalog.is_fetched(asset_id) for asset_id in NEEDED):
        output.err.print(catalogue_table())
        output.err.print()
    output.err.print(
        f"The demo accepts {licence} for {DETECTOR} on your behalf: it only runs the model, here, and passes it on to "
        "nobody. Who serves it to others must make the source of what they serve available.\n",
        highlight=False,
    )
    with _progress() as show:
        job = Demo(out, show, Layout(sidecar))
        interrupt.run(job.run())
    total_s = sum(step.seconds for step in job.steps)
    rows = [(step.name, step.result, f"{step.seconds:.1f} s") for step in job.steps]
    rows.append(("", f"pictures and receipts: {out}", f"{total_s:.1f} s"))
    rows.append(("next", f"a mesh that stays: {output.called()} up --detach", ""))
    view = output.table(("done", "result", "took"), rows)
    output.answer(chosen, {"steps": [asdict(step) for step in job.steps], "folder": str(out)}, view)


@contextmanager
def _progress() -> Iterator[Callable[[str, str], None]]:
    """Shows what is being done: in one moving line on a terminal, else a line for each step."""
    if not output.err.is_terminal:
        seen: list[str] = []

        def tell(step: str, detail: str) -> None:
            del detail
            if seen[-1:] != [step]:
                seen.append(step)
                output.err.print(step, markup=False, highlight=False)

        yield tell
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=output.err, transient=True) as progress:
        task = progress.add_task("", total=None)
        yield lambda step, detail: progress.update(task, description=f"{step}: {detail}" if detail else step)
