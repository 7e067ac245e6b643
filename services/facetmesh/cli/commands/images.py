"""`facetmesh images …`."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations at run time
from typing import Annotated

import typer

from facetmesh.cli import output
from facetmesh.cli.options import options

app = typer.Typer(no_args_is_help=True)


@app.command()
def upload(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="A JPEG, PNG or WebP file.", exists=True, dir_okay=False)],
) -> None:
    """Keep a picture for a day; `facetmesh fuse` takes its name in place of a file."""
    chosen = options(context)
    with chosen.tenant_client() as client:
        image = client.upload_image(file.read_bytes())
    output.answer(chosen, output.as_data(image), image.name)


@app.command("list")
def list_(context: typer.Context) -> None:
    """List the tenant's uploaded pictures."""
    chosen = options(context)
    with chosen.tenant_client() as client:
        images = client.list_images()
    rows = [(one.name, one.size_bytes, output.moment(one.expire_time)) for one in images]
    view = output.table(("image", "bytes", "until (UTC)"), rows)
    output.answer(chosen, {"images": [output.as_data(one) for one in images]}, view)


@app.command()
def delete(
    context: typer.Context, image: Annotated[str, typer.Argument(help="The image's name or SHA-256.")]
) -> None:
    """Delete an uploaded picture."""
    chosen = options(context)
    with chosen.tenant_client() as client:
        client.delete_image(image)
    output.answer(chosen, {"deleted": image}, f"{image} is deleted")
