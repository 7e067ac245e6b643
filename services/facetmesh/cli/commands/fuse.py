"""`facetmesh fuse SOURCE TARGET`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from facetmesh.cli import output
from facetmesh.cli.commands.fusions import told
from facetmesh.cli.options import options
from facetmesh.client import FusionOptions
from facetmesh.kit.errors import InvalidArgument

_NAME = re.compile(r"(tenants/[^/]+/)?(images|fusions)/[^/]+")
_FACES, _LOOK = "Which faces", "How they are put in"


def _point(text: str) -> tuple[float, float]:
    """Of X,Y."""
    x, _, y = text.partition(",")
    try:
        return float(x), float(y)
    except ValueError:
        raise typer.BadParameter(f'"{text}" is no point: say X,Y in pixels.') from None


def _picture(text: str) -> bytes | str:
    """The content of a file, or the name of what the tenant has."""
    if _NAME.fullmatch(text) and not Path(text).exists():
        return text
    return Path(text).read_bytes()


def fuse(  # noqa: PLR0913 - typer's way of options
    context: typer.Context,
    source: Annotated[
        str, typer.Argument(help="The photo that gives the face: a file, or images/… or fusions/… of the tenant's.")
    ],
    target: Annotated[str, typer.Argument(help="The photo that receives it, likewise.")],
    *,
    face_model: Annotated[str, typer.Option(help="The tenant's model that finds faces, by name or id.")],
    consent: Annotated[
        str, typer.Option(help="The consent of whose face is taken, by name or id: see `facetmesh consents create`.")
    ] = "",
    priority: Annotated[
        str, typer.Option(help="How urgent it is among the tenant's own: vip, standard or batch.")
    ] = "standard",
    source_face: Annotated[
        int, typer.Option(help="Which face is taken; 0 is the largest.", min=0, rich_help_panel=_FACES)
    ] = 0,
    sole_source: Annotated[
        bool, typer.Option("--sole-source", help="Refuse a source with several faces.", rich_help_panel=_FACES)
    ] = False,
    target_face: Annotated[
        int, typer.Option(help="Which face is replaced, counted in the order.", min=0, rich_help_panel=_FACES)
    ] = 0,
    pick: Annotated[
        str, typer.Option(help="Of the target's faces: index, sole, nearest, reference or all.", rich_help_panel=_FACES)
    ] = "",
    order: Annotated[
        str,
        typer.Option(
            help="What is face 0: largest, smallest, leftmost, rightmost, topmost, lowest.", rich_help_panel=_FACES
        ),
    ] = "largest",
    near: Annotated[
        str | None,
        typer.Option(help="Replace the face nearest to this point.", metavar="X,Y", rich_help_panel=_FACES),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            help="Replace the face that looks most like this photo's, up to 1 MB.", exists=True, dir_okay=False,
            rich_help_panel=_FACES,
        ),
    ] = None,
    label: Annotated[
        str, typer.Option(help="Only faces with the model's label, such as FACE_FEMALE.", rich_help_panel=_FACES)
    ] = "",
    sex: Annotated[
        str, typer.Option(help="Only faces that a model takes for female or male.", rich_help_panel=_FACES)
    ] = "",
    min_age: Annotated[
        int, typer.Option(help="Only faces that look so old at least.", min=0, max=120, rich_help_panel=_FACES)
    ] = 0,
    max_age: Annotated[
        int | None, typer.Option(help="Only faces that look so old at most.", min=0, max=120, rich_help_panel=_FACES)
    ] = None,
    mask: Annotated[str, typer.Option(help="Replace the face, hull or box.", rich_help_panel=_LOOK)] = "",
    region: Annotated[
        list[str] | None,
        typer.Option(help="Replace only eyes, nose, mouth or skin; repeatable.", rich_help_panel=_LOOK),
    ] = None,
    feather: Annotated[
        float | None,
        typer.Option(help="Width of the soft edge, in eye distances.", min=0, max=0.3, rich_help_panel=_LOOK),
    ] = None,
    weight: Annotated[
        float | None, typer.Option(help="How much of the source is seen.", min=0.01, max=1, rich_help_panel=_LOOK)
    ] = None,
    ignore_occlusion: Annotated[
        bool,
        typer.Option("--ignore-occlusion", help="Replace hair, hands and glasses too.", rich_help_panel=_LOOK),
    ] = False,
    keep_colours: Annotated[
        bool, typer.Option("--keep-colours", help="Leave the source's colours as they are.", rich_help_panel=_LOOK)
    ] = False,
    backend: Annotated[
        str,
        typer.Option(help="mesh or insightface; by default what the operator chose.", rich_help_panel=_LOOK),
    ] = "",
    out: Annotated[
        Path, typer.Option(help="Where the result is written, a PNG file.", dir_okay=False)
    ] = Path("fused.png"),
    side_by_side: Annotated[
        Path | None, typer.Option(help="Write source, target and result beside each other, too.", dir_okay=False)
    ] = None,
) -> None:
    """Put the face of one photo into another."""
    if side_by_side is not None:
        from facetmesh.cli import pictures  # noqa: PLC0415 - the base install lacks what it draws with
    chosen = options(context)
    wanted = FusionOptions(
        source_face_index=source_face, sole_source_face=sole_source, target_face_index=target_face, pick=pick,
        order=order, near=None if near is None else _point(near), label=label,
        sex=sex, min_age=min_age, max_age=max_age,
        mask=mask, regions=tuple(region or ()), feather=feather, weight=weight,
        ignore_occlusion=ignore_occlusion, keep_colours=keep_colours,
        reference=None if reference is None else reference.read_bytes(), backend=backend,
    )
    before = _picture(source), _picture(target)
    files_before = [picture for picture in before if isinstance(picture, bytes)]
    if side_by_side is not None and len(files_before) < len(before):
        raise InvalidArgument("Pictures are shown beside each other where both are files.", reason="FILE_MISSING")
    for file in filter(None, (out, side_by_side)):  # before there is work that nobody gets
        if not file.parent.is_dir():
            raise InvalidArgument(f"There is no folder {file.parent} to write {file.name} to.", reason="FILE_PROBLEM")
    with chosen.tenant_client() as client, output.err.status("queued") as status:
        operation = client.create_fusion(
            *before, face_model=face_model, consent=consent, priority=priority, options=wanted
        )
        # It goes on without us: who interrupts this, or is cut off, finds it by its name.
        output.note(operation.name)
        made = client.wait_fusion(operation.name, progress=lambda now: status.update(told(now)))
        content = client.download_fusion(made.name)
    out.write_bytes(content)
    files = {"file": str(out)}
    if side_by_side is not None:
        replaced = (made.target_face, *made.more_target_faces)
        pictures.draw_fusion(files_before[0], files_before[1], content, made.source_face, replaced, side_by_side)
        files["side_by_side"] = str(side_by_side)
    left = [f"{one.reason} at {one.face.x_min:.0f},{one.face.y_min:.0f}" for one in made.left_faces]
    view = output.facts({
        "fusion": made.name, "receipt": made.receipt, "picture": out,
        **({"side by side": side_by_side} if side_by_side else {}),
        **({"faces left as they are": ", ".join(left)} if left else {}),
    })
    output.answer(chosen, {**output.as_data(made), **files}, view)
