"""`facetmesh detect IMAGE`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from facetmesh.cli import output
from facetmesh.cli.options import options

if TYPE_CHECKING:
    from rich.console import RenderableType

    from facetmesh.detection.v1.detection_pb2 import Detection, DetectResponse

Image = Annotated[Path, typer.Argument(help="A JPEG, PNG or WebP file.", exists=True, dir_okay=False)]


def detect(
    context: typer.Context,
    image: Image,
    *,
    model: Annotated[str, typer.Option(help="The tenant's model, by name or id.")],
    model_version: Annotated[
        str, typer.Option(help="Its version's number, or an alias such as canary; by default as its calls are split.")
    ] = "",
    label: Annotated[list[str] | None, typer.Option(help="Only this label; repeatable.")] = None,
    min_confidence: Annotated[
        float | None, typer.Option(help="Leave out what the model is less sure of; by default 0.25.", min=0.001, max=1)
    ] = None,
    priority: Annotated[
        int, typer.Option(help="Of the tenant's calls that wait 1 goes first, 9 last; 0 is 5.", min=0, max=9)
    ] = 0,
    out: Annotated[Path | None, typer.Option(help="Draw what was found into this PNG file.", dir_okay=False)] = None,
) -> None:
    """Find objects in an image, or say what it shows, as the model does."""
    if out is not None:
        from facetmesh.cli import pictures  # noqa: PLC0415 - the base install lacks what it draws with
    chosen = options(context)
    content = image.read_bytes()
    with chosen.tenant_client() as client:
        found = client.detect(
            model, content, version=model_version, labels=label or (), min_confidence=min_confidence, priority=priority,
        )
    if out is not None:
        pictures.draw_detections(content, found.detections, out, found.classifications)
    output.answer(chosen, output.as_data(found), view(found, min_confidence))
    if not chosen.json:
        output.note(output.facts({"receipt": found.receipt, **({"picture": out} if out else {})}))


def view(found: DetectResponse, min_confidence: float | None = None) -> RenderableType:
    """What was found, as people read it."""
    if found.classifications:
        classes = ((one.label, f"{one.confidence:.2f}") for one in found.classifications)
        return output.table(("label", "confidence"), classes)
    if not found.detections:
        hint = " --min-confidence 0.1 shows what the model is less sure of." if min_confidence is None else ""
        return f"Nothing was found.{hint}"
    columns = ("label", "confidence", "left", "top", "right", "bottom")
    rows = [
        (one.label, f"{one.confidence:.2f}", *(f"{edge:.0f}" for edge in
         (one.box.x_min, one.box.y_min, one.box.x_max, one.box.y_max)), _more(one))
        for one in found.detections
    ]  # fmt: skip
    return output.table((*columns, "and"), rows) if any(row[-1] for row in rows) else output.table(columns, rows)


def _more(one: Detection) -> str:
    """What there is of an object beside its box: --json has all of it."""
    parts = [f"{len(one.keypoints)} points"] if one.keypoints else []
    parts += ["a mask"] if one.HasField("mask") else []
    parts += [f"turned by {math.degrees(one.rotated_box.angle_rad):.0f}°"] if one.HasField("rotated_box") else []
    return ", ".join(parts)
