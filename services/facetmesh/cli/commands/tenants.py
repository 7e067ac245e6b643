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
TenantId = Annotated[str, typer.Argument(help="The tenant's id: 3 to 40 of a-z, 0-9 and hyphen.")]


@app.command()
def create(
    context: typer.Context,
    tenant: TenantId,
    display_name: Annotated[str, typer.Option(help="What people call it.")] = "",
) -> None:
    """Create a tenant."""
    with options(context).admin_client() as client:
        _show(options(context), [client.create_tenant(tenant, display_name=display_name)], one=True)


@app.command()
def get(context: typer.Context, tenant: TenantId) -> None:
    """Show a tenant."""
    with options(context).admin_client() as client:
        _show(options(context), [client.get_tenant(tenant)], one=True)


@app.command("list")
def list_(context: typer.Context) -> None:
    """List all tenants."""
    with options(context).admin_client() as client:
        _show(options(context), client.list_tenants())


def _show(chosen: Options, tenants: list[auth_pb2.Tenant], *, one: bool = False) -> None:
    data = [output.as_data(tenant) for tenant in tenants]
    rows = ((tenant.name, tenant.display_name, output.moment(tenant.create_time)) for tenant in tenants)
    view = output.table(("tenant", "display name", "created (UTC)"), rows)
    output.answer(chosen, data[0] if one else {"tenants": data}, view)
