"""`facetmesh keys …`."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from facetmesh.auth.v1 import auth_pb2
from facetmesh.cli import output
from facetmesh.cli.fields import assign
from facetmesh.cli.mesh.secrets import rotate_keks, rotate_token_key
from facetmesh.cli.options import KEY_VARIABLE, options
from facetmesh.client import ROLE_AUDITOR, ROLE_CALLER, ROLE_OPERATOR, ROLE_TENANT_ADMIN, Role
from facetmesh.kit import files
from facetmesh.kit.errors import FailedPrecondition

if TYPE_CHECKING:
    from facetmesh.cli.options import Options

app = typer.Typer(no_args_is_help=True)
KeyName = Annotated[str, typer.Argument(help="Its name: tenants/TENANT/keys/KEY.")]
Out = Annotated[Path | None, typer.Option(help="Write the key into this file (mode 0600).", dir_okay=False)]


class RoleName(StrEnum):
    """The roles that a key can have."""

    CALLER = "caller"
    TENANT_ADMIN = "tenant-admin"
    OPERATOR = "operator"
    AUDITOR = "auditor"


_COLUMNS = ("key", "display name", "roles", "created (UTC)", "last used (UTC)", "expires (UTC)", "revoked (UTC)")
_ROLES = {
    RoleName.CALLER: ROLE_CALLER, RoleName.TENANT_ADMIN: ROLE_TENANT_ADMIN, RoleName.OPERATOR: ROLE_OPERATOR,
    RoleName.AUDITOR: ROLE_AUDITOR,
}


@app.command()
def create(
    context: typer.Context,
    tenant: Annotated[str, typer.Argument(help="Whose key it will be.")],
    *,
    role: Annotated[
        list[RoleName] | None, typer.Option(help="What it may do; by default what a caller may; repeatable.")
    ] = None,
    display_name: Annotated[str, typer.Option(help="What people call it.")] = "",
    days: Annotated[
        float | None, typer.Option(help="After how many days it stops working; by default never.", min=0)
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(help="Only this method, as package.Service/Method or package.Service/*; repeatable."),
    ] = None,
    model: Annotated[list[str] | None, typer.Option(help="Only this model of the tenant; repeatable.")] = None,
    out: Out = None,
) -> None:
    """Create an API key. It is shown this once."""
    chosen = options(context)
    check_out(out, anew=True)
    with chosen.admin_client() as client:
        roles = [_ROLES[name] for name in role or [RoleName.CALLER]]
        expire_time = None if days is None else datetime.now(UTC) + timedelta(days=days)
        key = client.create_key(
            tenant=tenant, display_name=display_name, roles=roles, expire_time=expire_time, methods=method or (),
            models=model or (),
        )
    show_once(chosen, key, out)


@app.command()
def rotate(
    context: typer.Context,
    key: KeyName,
    *,
    overlap_hours: Annotated[
        float, typer.Option(help="How long the old one goes on working; 0 after a leak.", min=0, max=168),
    ] = 24,
    out: Out = None,
) -> None:
    """Give a key a new secret. It is shown this once."""
    chosen = options(context)
    check_out(out)
    with chosen.admin_client() as client:
        show_once(chosen, client.rotate_key(key, overlap_s=overlap_hours * 3600), out)


@app.command("rotate-signing")
def rotate_signing(
    context: typer.Context,
    *,
    leaked: Annotated[bool, typer.Option(help="Accept no token that the old key signed, from now on.")] = False,
) -> None:
    """Make a new key that signs the tokens of the mesh on this machine, without a restart."""
    chosen = options(context)
    rotate_token_key(chosen.home, keep_old=not leaked)
    view = "The new key is published within seconds, and signs " + (
        "at once." if leaked else "once every service has seen it, in about two minutes."
    )
    output.answer(chosen, {"leaked": leaked}, view)


@app.command("rotate-encryption")
def rotate_encryption(context: typer.Context) -> None:
    """Make new keys that encrypt the tenants' keys in the mesh on this machine, without a restart."""
    chosen = options(context)
    rotate_keks(chosen.home)
    view = "Each service wraps its tenants' keys anew within seconds; what the old ones wrapped stays readable."
    output.answer(chosen, {}, view)


@app.command("revoke-token")
def revoke_token(
    context: typer.Context,
    token: Annotated[str, typer.Argument(help="Its name: tenants/TENANT/tokens/ID, where the id is its claim jti.")],
) -> None:
    """Revoke one token; the others of its key go on."""
    chosen = options(context)
    with chosen.admin_client() as client:
        client.revoke_token(token)
    output.answer(chosen, {"name": token}, f"{token} was revoked.")


@app.command()
def update(
    context: typer.Context,
    key: KeyName,
    *,
    display_name: Annotated[str | None, typer.Option(help="What people call it.")] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(help="What it may take of what its tenant may, as NAME=NUMBER, such as concurrency=4; those that "
                          "are not named are lifted; repeatable."),
    ] = None,
) -> None:
    """Change what people call a key, or what it may take."""
    chosen = options(context)
    limits = None if limit is None else auth_pb2.Limits()
    if limits is not None:
        assign(limits, limit or ())
    with chosen.admin_client() as client:
        changed = client.update_key(key, display_name=display_name, limits=limits)
    view = output.facts({**dict(zip(_COLUMNS, _row(changed), strict=True)), "limits": output.as_data(changed.limits)})
    output.answer(chosen, output.as_data(changed), view)


def check_out(out: Path | None, *, anew: bool = False) -> None:
    """Returns when a key can be written into a file: asked after it was made, its secret would be lost.

    Args:
        out: The file; None where the key is shown.
        anew: Whether there must be none: the key in it is in no other place.

    Raises:
        FailedPrecondition: TARGET_EXISTS, FOLDER_NOT_WRITABLE.
    """
    if out is None:
        return
    if anew and out.exists():
        raise FailedPrecondition(f"{out} is there already, and stays as it is.", reason="TARGET_EXISTS")
    if not os.access(out.parent, os.W_OK | os.X_OK):
        raise FailedPrecondition(
            f"There is no folder {out.parent} that can be written.", reason="FOLDER_NOT_WRITABLE"
        )


def show_once(chosen: Options, key: auth_pb2.Key, out: Path | None, *, data: dict[str, Any] | None = None) -> None:
    """Shows a key's secret, or writes it into a file.

    Args:
        chosen: The global options.
        key: The key with its secret.
        out: The file; shown when None.
        data: What programs are told; the key when None. Where it has a key within, that loses its secret too.
    """
    data = output.as_data(key) if data is None else data
    if not key.secret:
        view = f"{key.name}\nIts secret was shown before, and was used since: `facetmesh keys rotate` makes another."
    elif out is None:
        view = f"{key.name}\n{key.secret}\nThis is shown once. Keep it, and give it in {KEY_VARIABLE}."
    else:
        files.write(out, key.secret + "\n", mode=files.PRIVATE)
        del data.get("key", data)["secret"]
        view = f"{key.name}\nwritten to {out}; use it with --key-file {out}"
    output.answer(chosen, data, view)


@app.command("list")
def list_(
    context: typer.Context,
    tenant: Annotated[str | None, typer.Argument(help="Whose; by default those of the key's own tenant.")] = None,
) -> None:
    """List a tenant's keys, without their secrets."""
    chosen = options(context)
    with chosen.admin_client() as client:
        keys = client.list_keys(tenant=tenant)
    view = output.table(_COLUMNS, map(_row, keys))
    output.answer(chosen, {"keys": [output.as_data(key) for key in keys]}, view)


@app.command()
def revoke(context: typer.Context, key: KeyName) -> None:
    """Revoke a key: it can no longer be exchanged for tokens."""
    chosen = options(context)
    with chosen.admin_client() as client:
        revoked = client.revoke_key(key)
    output.answer(chosen, output.as_data(revoked), f"{revoked.name} was revoked.")


def _row(key: auth_pb2.Key) -> tuple[str, ...]:
    return (
        key.name, key.display_name, ", ".join(map(_role, key.roles)), output.moment(key.create_time),
        output.moment(key.last_use_time), output.moment(key.expire_time), output.moment(key.revoke_time),
    )  # fmt: skip


def _role(role: Role.ValueType) -> str:
    return Role.Name(role).removeprefix("ROLE_").lower().replace("_", "-")
