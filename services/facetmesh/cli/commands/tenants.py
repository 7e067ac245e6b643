"""`facetmesh tenants …`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from facetmesh.cli import output
from facetmesh.cli.options import options

if TYPE_CHECKING:
    from facetmesh.auth.v1 import auth_pb2
    from facetmesh.cli.options import Options

app = typer.Typer(no_args_is_help=True)
_COLUMNS = ("tenant", "display name", "state", "created (UTC)", "can be undeleted until (UTC)")
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
) -> None:
    """Create a tenant."""
    with options(context).admin_client() as client:
        made = client.create_tenant(tenant, display_name=display_name, licence_classes=allow_licences or ())
        _show(options(context), [made], one=True)


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
    context: typer.Context, tenant: TenantId, display_name: Annotated[str, typer.Option(help="What people call it.")],
) -> None:
    """Change what people call a tenant."""
    with options(context).admin_client() as client:
        _show(options(context), [client.update_tenant(tenant, display_name=display_name)], one=True)


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


def _show(chosen: Options, tenants: list[auth_pb2.Tenant], *, one: bool = False) -> None:
    data = [output.as_data(tenant) for tenant in tenants]
    rows = (
        (tenant.name, tenant.display_name, tenant.State.Name(tenant.state).removeprefix("STATE_").lower(),
         output.moment(tenant.create_time), output.moment(tenant.expire_time))
        for tenant in tenants
    )  # fmt: skip
    view = output.table(_COLUMNS, rows)
    output.answer(chosen, data[0] if one else {"tenants": data}, view)
