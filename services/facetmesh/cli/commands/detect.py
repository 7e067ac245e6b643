"""`facetmesh detect IMAGE`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from facetmesh.cli import output
from facetmesh.cli.options import options

Image = Annotated[Path, typer.Argument(help="A JPEG, PNG or WebP file.", exists=True, dir_okay=False)]


def detect(
    context: typer.Context,
    image: Image,
    *,
    model: Annotated[str, typer.Option(help="The tenant's model, by name or id.")],
    label: Annotated[list[str] | None, typer.Option(help="Only this label; repeatable.")] = None,
    min_confidence: Annotated[float | None, typer.Option(help="Leave out boxes below it.", min=0.001, max=1)] = None,
    priority: Annotated[
        int, typer.Option(help="Of the tenant's calls that wait 1 goes first, 9 last; 5 when 0.", min=0, max=9)
    ] = 0,
    out: Annotated[Path | None, typer.Option(help="Draw the boxes into this picture.", dir_okay=False)] = None,
) -> None:
    """Find objects in an image."""
    if out is not None:
        from facetmesh.cli import pictures  # noqa: PLC0415 - the base install lacks what it draws with
    chosen = options(context)
    content = image.read_bytes()
    with chosen.tenant_client() as client:
        found = client.detect(model, content, labels=label or (), min_confidence=min_confidence, priority=priority)
    if out is not None:
        pictures.draw_detections(content, found.detections, out)
    rows = (
        (one.label, f"{one.confidence:.2f}", *(f"{edge:.0f}" for edge in
         (one.box.x_min, one.box.y_min, one.box.x_max, one.box.y_max)))
        for one in found.detections
    )  # fmt: skip
    view = output.table(("label", "confidence", "left", "top", "right", "bottom"), rows)
    output.answer(chosen, output.as_data(found), view)
    if not chosen.json:
        output.note(output.facts({"receipt": found.receipt, **({"picture": out} if out else {})}))
