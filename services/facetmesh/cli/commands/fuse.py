"""`facetmesh fuse SOURCE TARGET`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from facetmesh.cli import output
from facetmesh.cli.commands.fusions import told
from facetmesh.cli.options import options


def fuse(  # noqa: PLR0913 - typer's way of options
    context: typer.Context,
    source: Annotated[Path, typer.Argument(help="The photo that gives the face.", exists=True, dir_okay=False)],
    target: Annotated[Path, typer.Argument(help="The photo that receives it.", exists=True, dir_okay=False)],
    *,
    face_model: Annotated[str, typer.Option(help="The tenant's model that finds faces, by name or id.")],
    source_face: Annotated[int, typer.Option(help="Which face is taken; 0 is the largest.", min=0)] = 0,
    target_face: Annotated[int, typer.Option(help="Which face is replaced; 0 is the largest.", min=0)] = 0,
    consent: Annotated[
        str, typer.Option(help="The consent of whose face is taken, by name or id: see `facetmesh consents create`.")
    ] = "",
    priority: Annotated[
        str, typer.Option(help="How urgent it is among the tenant's own: vip, standard or batch.")
    ] = "standard",
    out: Annotated[Path, typer.Option(help="Where the result is written.", dir_okay=False)] = Path("fused.png"),
) -> None:
    """Put the face of one photo into another."""
    chosen = options(context)
    with chosen.tenant_client() as client, output.err.status("queued") as status:
        result = client.fuse(
            source.read_bytes(), target.read_bytes(), face_model=face_model, source_face_index=source_face,
            target_face_index=target_face, consent=consent, priority=priority,
            progress=lambda now: status.update(told(now)),
        )
    out.write_bytes(result.content)
    view = output.facts({"fusion": result.fusion.name, "receipt": result.fusion.receipt, "picture": out})
    output.answer(chosen, {**output.as_data(result.fusion), "file": str(out)}, view)
