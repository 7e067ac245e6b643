"""`facetmesh models …`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path  # noqa: TC003 - typer reads it at run time
from typing import TYPE_CHECKING, Annotated

import typer

from facetmesh.cli import output
from facetmesh.cli.options import options
from facetmesh.detection.v1 import model_pb2
from facetmesh.kit import catalog
from facetmesh.kit.errors import InvalidArgument

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
def verify(
    context: typer.Context,
    asset: Annotated[
        list[str] | None, typer.Argument(help="Ids of entries that must be there; all that are, if none is named."),
    ] = None,
) -> None:
    """Check that what was fetched of the catalogue is whole. Exit code 1 if something is damaged or missing."""
    chosen = options(context)
    found = {asset_id: catalog.condition(asset_id) for asset_id in asset or catalog.ASSETS}
    if not asset:
        found = {asset_id: seen for asset_id, seen in found.items() if seen is not catalog.Condition.MISSING}
    said = output.facts(found) if found else f"nothing has been fetched into {catalog.cache_folder()}"
    output.answer(chosen, {"verified": found}, said)
    if any(seen is not catalog.Condition.WHOLE for seen in found.values()):
        raise typer.Exit(1)


@app.command()
def add(
    context: typer.Context,
    asset: Annotated[str, typer.Argument(help="The id of the catalogue's entry.")],
    *,
    name: Annotated[
        str | None, typer.Option("--as", help="What the tenant calls it; by default the entry's id.")
    ] = None,
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


@app.command()
def upload(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="ONNX, TorchScript, or a checkpoint of ultralytics' (.pt).",
                                         dir_okay=False, exists=True, readable=True)],
    *,
    licence: Annotated[str, typer.Option(help="The licence that it is under, as an SPDX expression.")],
    name: Annotated[
        str | None, typer.Option("--as", help="Which model it is a version of; by default the file's name.")
    ] = None,
    label: Annotated[list[str] | None, typer.Option(help="A class's name, in order, if the file has none.")] = None,
    task: Annotated[str, typer.Option(help="detect, segment, pose, obb or classify, if the file does not say.")] = "",
    signature: Annotated[Path | None, typer.Option(help="A file with its signature (docs/models.md).")] = None,
) -> None:
    """Make a version of a model out of a file. If it is cut off, run it again: it goes on."""
    chosen = options(context)
    data = file.read_bytes()
    with chosen.tenant_client() as client, output.err.status(f"sending {file.name}") as status:

        def progress(sent: int) -> None:
            done = sent == len(data)
            status.update("it is being checked" if done else f"sending {file.name}: {100 * sent // len(data)} %")

        version = client.upload_model(
            name or file.stem, data, licence=licence, checkpoint=file.suffix == ".pt", labels=label or (), task=task,
            signature=signature.read_bytes() if signature else b"", progress=progress,
        )
    output.answer(chosen, output.as_data(version), output.facts(_described(version)))


@app.command()
def quantize(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="The model's id.")],
    version: Annotated[str, typer.Argument(help="The original's number.")],
    images: Annotated[list[Path], typer.Argument(help="20 photos or more such as it will see, 40 MB at most.",
                                                 dir_okay=False, exists=True, readable=True)],
    *,
    min_agreement: Annotated[float | None, typer.Option(help="Refuse it below this F1 score; by default 0.9.")] = None,
) -> None:
    """Make a version of 8 bits of another one, measured against it."""
    chosen = options(context)
    files = [image.read_bytes() for image in images]
    with chosen.tenant_client() as client, output.err.status("quantizing and measuring"):
        made = client.quantize_version(model, version, files, min_agreement=min_agreement)
    total = made.quantization.total
    rows = {f"agreement on {one.label}": f"{one.f1:.3f}" for one in made.quantization.classes}
    agreed = {"agreement": f"{total.f1:.3f} ({total.matched_count} of {total.source_count} objects)", **rows}
    output.answer(chosen, output.as_data(made), output.facts({**_described(made), **agreed}))


@app.command()
def versions(context: typer.Context, model: Annotated[str, typer.Argument(help="The model's id.")]) -> None:
    """List a model's versions, and which aliases name them."""
    chosen = options(context)
    with chosen.tenant_client() as client:
        aliases, found = client.get_model(model).aliases, client.list_versions(model)
    rows = (
        (number := version.name.rpartition("/")[2], ", ".join(sorted(a for a, at in aliases.items() if at == number)),
         model_pb2.Task.Name(version.task).removeprefix("TASK_").lower(), version.licence, version.sha256[:12])
        for version in found
    )  # fmt: skip
    output.answer(
        chosen, {"versions": [output.as_data(version) for version in found]},
        output.table(("version", "aliases", "task", "licence", "sha256"), rows),
    )


@app.command()
def alias(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="The model's id.")],
    name: Annotated[str, typer.Argument(help="The alias, such as stable or canary.")],
    version: Annotated[str, typer.Argument(help="The version's number; none removes the alias.")] = "",
) -> None:
    """Move an alias of a model to a version."""
    chosen = options(context)
    with chosen.tenant_client() as client:
        changed = client.set_aliases(model, {name: version or None})
    output.answer(chosen, output.as_data(changed), output.facts(dict(sorted(changed.aliases.items()))))


@app.command()
def split(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="The model's id.")],
    parts: Annotated[list[str] | None, typer.Argument(help="VERSION=PERCENT …; none sends all to stable.")] = None,
    *,
    shadow: Annotated[str, typer.Option(help="VERSION=PERCENT: it gets copies of so many calls.")] = "",
) -> None:
    """Split a model's calls between versions, by number or alias."""
    chosen = options(context)
    traffic = model_pb2.Traffic()
    for part in parts or ():
        version, percent = _part(part)
        traffic.targets.add(version=version, percent=percent)
    if shadow:
        traffic.shadow_version, traffic.shadow_percent = _part(shadow)
    with chosen.tenant_client() as client:
        changed = client.set_traffic(model, traffic)
    traffic = changed.traffic
    shown = {target.version: f"{target.percent} %" for target in traffic.targets} or {"stable": "100 %"}
    if traffic.shadow_version:
        shown[f"{traffic.shadow_version}, as a shadow"] = f"copies of {traffic.shadow_percent} %"
    output.answer(chosen, output.as_data(changed), output.facts(shown))


@app.command()
def remove(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="The model's id.")],
    version: Annotated[str, typer.Argument(help="Only this version, by its number.")] = "",
) -> None:
    """Delete a version of a model, or the model with all of them."""
    chosen = options(context)
    with chosen.tenant_client() as client:
        if version:
            client.delete_version(model, version)
        else:
            client.delete_model(model)
    output.answer(chosen, {"deleted": model, "version": version}, f"{model} {version} is deleted".replace("  ", " "))


def _part(text: str) -> tuple[str, int]:
    version, _, percent = text.partition("=")
    if not version or not percent.isdecimal():
        raise InvalidArgument(f'"{text}" is not VERSION=PERCENT.', reason="SPLIT_INVALID")
    return version, int(percent)


def _described(version: model_pb2.ModelVersion) -> dict[str, object]:
    return {
        "version": version.name,
        "task": model_pb2.Task.Name(version.task).removeprefix("TASK_").lower(),
        "input": f"{version.input_width} x {version.input_height}",
        "labels": ", ".join(version.labels[:20]) + (", …" if len(version.labels) > 20 else ""),  # noqa: PLR2004 - a line
        "sha256": version.sha256,
        "signed with": version.signing_key_id or "nothing",
    }


def catalogue_table() -> Table:
    """The catalogue, as people read it."""
    rows = (
        (asset.id, f"{asset.title}. {asset.origin}",
         asset.licence + (" (must be accepted)" if asset.needs_acceptance else ""),
         "yes" if catalog.is_fetched(asset.id) else "no")
        for asset in catalog.ASSETS.values()
    )  # fmt: skip
    return output.table(("id", "what", "licence", "fetched"), rows, title="The catalogue")
