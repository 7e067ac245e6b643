"""`facetmesh models …`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from facetmesh.cli import output
from facetmesh.cli.options import options
from facetmesh.kit import catalog

if TYPE_CHECKING:
    from rich.table import Table

app = typer.Typer(no_args_is_help=True)
AcceptLicence = Annotated[
    str | None, typer.Option(help="The licence that you accept, by its SPDX id, where `models list` asks for it."),
]


@app.command("list")
def list_(context: typer.Context) -> None:
    """List the catalogue with licences and origins and, with a tenant's key, the tenant's models."""
    chosen = options(context)
    entries = [{**asdict(asset), "fetched": catalog.is_fetched(asset.id)} for asset in catalog.ASSETS.values()]
    data: dict[str, object] = {"catalogue": entries}
    if chosen.has_tenant_key:
        with chosen.tenant_client() as client:
            models = client.list_models()
        data["models"] = [output.as_data(model) for model in models]
    if chosen.json:
        output.answer(chosen, data, "")
        return
    output.out.print(catalogue_table())
    if chosen.has_tenant_key:
        rows = ((model.name, model.catalog_id, model.licence, len(model.labels)) for model in models)
        output.out.print()
        output.out.print(output.table(("model", "from", "licence", "labels"), rows, title="The tenant's models"))


@app.command()
def fetch(
    context: typer.Context,
    asset: Annotated[list[str], typer.Argument(help="Ids of the catalogue's entries, or `all`.")],
    accept_licence: AcceptLicence = None,
) -> None:
    """Fetch entries of the catalogue onto this machine."""
    chosen = options(context)
    wanted = list(catalog.ASSETS) if asset == ["all"] else asset
    fetched = {}
    for asset_id in wanted:
        entry = catalog.asset(asset_id)
        output.err.print(f"[bold]{entry.id}[/] {entry.title} · {entry.licence} · {entry.origin}", highlight=False)
        with output.err.status(entry.requirement) as status:
            accepted = accept_licence if entry.needs_acceptance else None
            path = catalog.fetch(asset_id, accept_licence=accepted, progress=status.update)
        fetched[asset_id] = str(path)
    output.answer(chosen, {"fetched": fetched}, output.facts(fetched))


@app.command()
def add(
    context: typer.Context,
    asset: Annotated[str, typer.Argument(help="The id of the catalogue's entry.")],
    *,
    name: Annotated[str | None, typer.Option("--as", help="What the tenant calls it; the entry's id.")] = None,
    accept_licence: AcceptLicence = None,
) -> None:
    """Give the key's tenant a model of the catalogue."""
    chosen = options(context)
    with chosen.tenant_client() as client:
        model = client.create_model(name or asset, catalog_id=asset, accept_licence=accept_licence or "")
    output.answer(
        chosen, output.as_data(model),
        output.facts({"model": model.name, "licence": model.licence, "labels": ", ".join(model.labels)}),
    )


def catalogue_table() -> Table:
    """The catalogue, as people read it."""
    rows = (
        (asset.id, f"{asset.title}. {asset.origin}",
         asset.licence + (" (must be accepted)" if asset.needs_acceptance else ""),
         "yes" if catalog.is_fetched(asset.id) else "no")
        for asset in catalog.ASSETS.values()
    )  # fmt: skip
    return output.table(("id", "what", "licence", "fetched"), rows, title="The catalogue")
