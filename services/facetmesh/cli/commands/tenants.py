"""`facetmesh tenants …`."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from facetmesh.auth.v1 import auth_pb2
from facetmesh.cli import namespaces, output
from facetmesh.cli.commands.keys import Out, check_out, show_once
from facetmesh.cli.fields import assign, written
from facetmesh.cli.options import options
from facetmesh.client import Client

if TYPE_CHECKING:
    from facetmesh.cli.options import Options

app = typer.Typer(no_args_is_help=True)
_COLUMNS = ("tenant", "display name", "state", "plan", "created (UTC)", "can be undeleted until (UTC)")
_SHOWN = {"name", "display_name", "state", "plan", "create_time", "expire_time", "etag"}
"""The fields that the columns have, and one that is for programs."""
Plan = Annotated[str | None, typer.Option(help="Its plan: `facetmesh tenants plans` lists them.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="What else it shall have, as FIELD=VALUE, such as region=eu, limits.concurrency=20, "
                               "allowed_models=faces,yolo-*, licence_policy.classes=permissive,copyleft, "
                               "audit_policy=best-effort, url_allowlist=images.example, result_days=7; repeatable."),
]  # fmt: skip
TenantId = Annotated[str, typer.Argument(help="The tenant's id: 3 to 40 of a-z, 0-9 and hyphen.")]


@app.command()
def create(
    context: typer.Context,
    tenant: TenantId,
    *,
    display_name: Annotated[str, typer.Option(help="What people call it.")] = "",
    allow_licences: Annotated[
        list[str] | None,
        typer.Option(help="What its models' licences may ask for: permissive, copyleft, non-commercial; permissive "
                          "ones only, if it is not given."),
    ] = None,
    plan: Plan = None,
    set_: Set = None,
) -> None:
    """Create a tenant."""
    with options(context).admin_client() as client:
        made = client.create_tenant(
            tenant, display_name=display_name, licence_classes=allow_licences or (), tenant=_wanted(plan, set_)[0],
        )
        _show(options(context), [made], one=True)


@app.command()
def onboard(
    context: typer.Context,
    tenant: TenantId,
    *,
    plan: Plan = None,
    set_: Set = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="Give it this model: an entry of the catalogue, or a file; repeatable."),
    ] = None,
    accept_licence: Annotated[
        str | None,
        typer.Option(help="The licence that the tenant accepts, by its SPDX id: a file's, or what the catalogue asks."),
    ] = None,
    out: Out = None,
    request_id: Annotated[
        str | None, typer.Option(help="The UUID of a call that was cut short, to take up what it made.")
    ] = None,
) -> None:
    """Make a tenant, its first key and, if they are named, its models: all that it needs to be served."""
    chosen = options(context)
    wanted, _ = _wanted(plan, set_)
    check_out(out, anew=request_id is None)
    if accept_licence and accept_licence not in wanted.licence_policy.licences:
        if not wanted.licence_policy.classes:
            wanted.licence_policy.classes.append(auth_pb2.LICENCE_CLASS_PERMISSIVE)
        wanted.licence_policy.licences.append(accept_licence)
    request_id = request_id or str(uuid.uuid4())
    with chosen.admin_client() as client:
        output.note(f"To repeat this if it is cut short: --request-id {request_id}")
        made = client.onboard_tenant(tenant, tenant=wanted, request_id=request_id)
    show_once(chosen, made.key, out, data=output.as_data(made))
    if model:
        with Client(made.key.secret, chosen.endpoints) as client:
            for one in model:
                output.note(f"{_give(client, one, accept_licence or '')} serves.")


@app.command()
def plans(context: typer.Context) -> None:
    """List what tenants are offered."""
    with options(context).admin_client() as client:
        found = client.list_plans()
    rows = (
        (plan.name.removeprefix("plans/"), plan.display_name, plan.weight,
         ", ".join(f"{one.name} {output.number(value)}" for one, value in plan.limits.ListFields()) or "not limited")
        for plan in found
    )  # fmt: skip
    view = output.table(("plan", "display name", "weight", "limits"), rows)
    output.answer(options(context), {"plans": [output.as_data(plan) for plan in found]}, view)


@app.command("render-namespace")
def render_namespace(  # noqa: PLR0913 - one for each quantity
    context: typer.Context,
    tenant: TenantId,
    *,
    cpu: Annotated[str, typer.Option(help="Cores that its pods may ask for together.")] = namespaces.DEFAULT.cpu,
    cpu_limit: Annotated[str, typer.Option(help="Cores that they may burst to.")] = namespaces.DEFAULT.cpu_limit,
    memory: Annotated[str, typer.Option(help="Memory, such as 16Gi.")] = namespaces.DEFAULT.memory,
    storage: Annotated[str, typer.Option(help="What their volumes may hold.")] = namespaces.DEFAULT.storage,
    pods: Annotated[int, typer.Option(help="How many there may be.")] = namespaces.DEFAULT.pods,
    gpus: Annotated[int, typer.Option(help="Whole GPUs.")] = namespaces.DEFAULT.gpus,
    mig_slices: Annotated[int, typer.Option(help="Slices of a GPU.")] = namespaces.DEFAULT.mig_slices,
    out: Annotated[
        Path | None, typer.Option(help="A new folder for it, for kustomize; else it is printed.", file_okay=False)
    ] = None,
) -> None:
    """Write a tenant's namespace on Kubernetes, with its quota, limits and network policy. Asks no mesh."""
    share = namespaces.Share(cpu, cpu_limit, memory, storage, pods, gpus, mig_slices)
    text = namespaces.render(tenant, share)
    if out is None:
        output.answer(options(context), {"manifests": text}, text.rstrip())
        return
    out.mkdir(parents=True)
    (out / "tenant.yaml").write_text(text)
    (out / "kustomization.yaml").write_text(namespaces.KUSTOMIZATION)
    output.answer(options(context), {"folder": str(out)}, f"kubectl apply -k {out}")


@app.command("rotate-key")
def rotate_key(context: typer.Context, tenant: TenantId) -> None:
    """Give a tenant a new key for what is encrypted from now on."""
    with options(context).admin_client() as client:
        _show(options(context), [client.rotate_tenant_key(tenant)], one=True)


@app.command()
def get(context: typer.Context, tenant: TenantId) -> None:
    """Show a tenant."""
    with options(context).admin_client() as client:
        _show(options(context), [client.get_tenant(tenant)], one=True)


@app.command("list")
def list_(
    context: typer.Context, *, deleted: Annotated[bool, typer.Option(help="List deleted tenants too.")] = False,
) -> None:
    """List all tenants."""
    with options(context).admin_client() as client:
        _show(options(context), client.list_tenants(show_deleted=deleted))


@app.command()
def update(
    context: typer.Context,
    tenant: TenantId,
    *,
    display_name: Annotated[str | None, typer.Option(help="What people call it.")] = None,
    plan: Plan = None,
    set_: Set = None,
) -> None:
    """Change a tenant."""
    changes, fields = _wanted(plan, set_)
    with options(context).admin_client() as client:
        changed = client.update_tenant(tenant, display_name=display_name, changes=changes, fields=fields)
        _show(options(context), [changed], one=True)


@app.command()
def suspend(context: typer.Context, tenant: TenantId) -> None:
    """Shut a tenant out until it is resumed."""
    with options(context).admin_client() as client:
        _show(options(context), [client.suspend_tenant(tenant)], one=True)


@app.command()
def resume(context: typer.Context, tenant: TenantId) -> None:
    """Let a suspended tenant in again."""
    with options(context).admin_client() as client:
        _show(options(context), [client.resume_tenant(tenant)], one=True)


@app.command()
def delete(context: typer.Context, tenant: TenantId) -> None:
    """Delete a tenant. It can be undeleted for a while."""
    with options(context).admin_client() as client:
        _show(options(context), [client.delete_tenant(tenant)], one=True)


@app.command()
def undelete(context: typer.Context, tenant: TenantId) -> None:
    """Bring a deleted tenant back."""
    with options(context).admin_client() as client:
        _show(options(context), [client.undelete_tenant(tenant)], one=True)


def _give(client: Client, model: str, licence: str) -> str:
    """Gives a tenant a model of the catalogue, or a file's; returns its name."""
    file = Path(model)
    if not file.is_file():
        return client.create_model(model, catalog_id=model, accept_licence=licence).name
    return client.upload_model(file.stem, file.read_bytes(), licence=licence, checkpoint=file.suffix == ".pt").name


def _wanted(plan: str | None, assignments: list[str] | None) -> tuple[auth_pb2.Tenant, list[str]]:
    """What a tenant shall have, and the fields that say so."""
    tenant = auth_pb2.Tenant()
    fields = assign(tenant, assignments or ())
    if plan is not None:
        tenant.plan = plan if "/" in plan or not plan else f"plans/{plan}"
        fields.append("plan")
    return tenant, fields


def _show(chosen: Options, tenants: list[auth_pb2.Tenant], *, one: bool = False) -> None:
    data = [output.as_data(tenant) for tenant in tenants]
    rows = [
        (tenant.name, tenant.display_name, tenant.State.Name(tenant.state).removeprefix("STATE_").lower(),
         tenant.plan.removeprefix("plans/"), output.moment(tenant.create_time), output.moment(tenant.expire_time))
        for tenant in tenants
    ]  # fmt: skip
    if one:
        more = {name: value for name, value in written(tenants[0]).items() if name not in _SHOWN}
        said = {name: value for name, value in zip(_COLUMNS, rows[0], strict=True) if value}
        output.answer(chosen, data[0], output.facts({**said, **more}))
    else:
        output.answer(chosen, {"tenants": data}, output.table(_COLUMNS, rows))
