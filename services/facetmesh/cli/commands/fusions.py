"""`facetmesh fusions …`."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from facetmesh.cli import output
from facetmesh.cli.options import options
from facetmesh.fusion.v1.fusion_pb2 import FusionMatch, FusionMetadata

if TYPE_CHECKING:
    from google.longrunning import operations_pb2

app = typer.Typer(no_args_is_help=True)


def _operation(name: str) -> str:
    """The operation of a fusion, which has the same id."""
    return name.replace("/fusions/", "/operations/")


Operation = Annotated[
    str, typer.Argument(help="The operation's name, its fusion's, or the id that both have.", callback=_operation)
]
Fusion = Annotated[str, typer.Argument(help="The fusion's name or id.")]


@app.command()
def lookup(
    context: typer.Context,
    picture: Annotated[Path, typer.Argument(help="A JPEG, PNG or WebP file.", exists=True, dir_okay=False)],
) -> None:
    """Say whether a picture was made here: the file itself, or a copy that was saved anew or made smaller."""
    chosen = options(context)
    with chosen.tenant_client() as client:
        matches = client.look_up_fusion(picture.read_bytes())
    rows = [
        (one.fusion.name, _likeness(one), output.moment(one.fusion.create_time), one.fusion.receipt) for one in matches
    ]
    view = output.table(("fusion", "it is", "asked for (UTC)", "receipt"), rows)
    output.answer(chosen, {"matches": [output.as_data(one) for one in matches]}, view)


@app.command()
def watch(context: typer.Context, operation: Operation) -> None:
    """Follow a fusion until it is done."""
    chosen = options(context)
    with chosen.tenant_client() as client:
        for now in client.watch_operation(operation):
            output.answer(chosen, output.as_data(now), progress(now))


@app.command()
def cancel(context: typer.Context, operation: Operation) -> None:
    """Stop a fusion that is not done."""
    chosen = options(context)
    with chosen.tenant_client() as client:
        now = client.cancel_operation(operation)
    output.answer(chosen, output.as_data(now), progress(now))


@app.command()
def download(
    context: typer.Context,
    fusion: Fusion,
    out: Annotated[Path, typer.Option(help="Where it is written.", dir_okay=False)] = Path("fused.png"),
) -> None:
    """Fetch a fused picture."""
    chosen = options(context)
    with chosen.tenant_client() as client:
        out.write_bytes(client.download_fusion(fusion))
    output.answer(chosen, {"fusion": fusion, "file": str(out)}, f"written to {out}")


@app.command()
def link(
    context: typer.Context,
    fusion: Fusion,
    minutes: Annotated[int, typer.Option(help="For how long it can be used.", min=1, max=60)] = 10,
) -> None:
    """Make a link by which anybody fetches a fused picture through the gateway, for a while."""
    chosen = options(context)
    with chosen.tenant_client() as client:
        made = client.link_fusion(fusion, lifetime=timedelta(minutes=minutes))
    scheme = "https" if chosen.encrypted else "http"
    url = f"{scheme}://{chosen.address}{made.path}" if chosen.address else made.path
    output.answer(chosen, {**output.as_data(made), "url": url}, url)
    if not chosen.address:
        output.note("A gateway's address belongs before it: `facetmesh up --gateway` starts one, --address names it.")


@app.command()
def delete(context: typer.Context, fusion: Fusion) -> None:
    """Delete a fused picture for good; looking it up still finds what is known of it."""
    chosen = options(context)
    with chosen.tenant_client() as client:
        client.delete_fusion(fusion)
    output.answer(chosen, {"deleted": fusion}, f"{fusion} is deleted")


def _likeness(match: FusionMatch) -> str:
    return "the file" if match.kind == FusionMatch.KIND_FILE else f"alike, {match.distance_bits} of 64 bits differ"


def progress(operation: operations_pb2.Operation) -> str:
    """How far an operation is, in a line."""
    if operation.HasField("error"):
        return f"refused: {operation.error.message}"
    metadata = FusionMetadata()
    operation.metadata.Unpack(metadata)
    return told(metadata)


def told(now: FusionMetadata) -> str:
    """How far a fusion is, in a line."""
    stage = FusionMetadata.Stage.Name(now.stage).removeprefix("STAGE_").lower()
    place = f", {now.queue_position} in the line" if now.queue_position else ""
    wait = f", {now.estimated_wait.ToSeconds()} s to wait" if now.HasField("estimated_wait") else ""
    return f"{stage} {now.percent} %{place}{wait}"
