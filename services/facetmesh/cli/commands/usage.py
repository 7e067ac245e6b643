"""`facetmesh usage`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group

from facetmesh.cli import output
from facetmesh.cli.options import options

if TYPE_CHECKING:
    from collections.abc import Iterator

    from facetmesh.auth.v1 import auth_pb2

_LIMITS = ("limit", "used", "of", "key")
_RECORDS = ("from (UTC)", "model", "calls", "images", "compute s", "stored bytes")
_NAMES = {
    "requests_per_s": "calls a second", "concurrency": "calls in progress", "images_per_day": "images today",
    "compute_seconds_per_day": "compute seconds today", "stored_bytes": "stored bytes", "models": "models",
}  # fmt: skip


def usage(
    context: typer.Context,
    tenant: Annotated[str | None, typer.Argument(help="Whose; by default the key's own tenant's.")] = None,
    *,
    hourly: Annotated[bool, typer.Option("--hourly", help="By hour instead of by day.")] = False,
) -> None:
    """Show a tenant's limits, what is used of them, and what was used in the last week by model."""
    chosen = options(context)
    with chosen.tenant_client() if tenant is None else chosen.admin_client() as client:
        now = client.usage(tenant=tenant)
        records = client.usage_records(tenant=tenant, hourly=hourly)
    limits = [*_rows(now.limits, now.used)]
    for key in now.keys:
        limits += _rows(key.limits, key.used, key.key)
    rows = (
        (output.moment(one.start_time), one.model or "all calls", str(one.calls), str(one.images),
         f"{one.compute_seconds:.1f}", str(one.stored_bytes or ""))
        for one in records
    )  # fmt: skip
    data = {"usage": output.as_data(now), "records": [output.as_data(one) for one in records]}
    output.answer(chosen, data, Group(output.table(_LIMITS, limits), output.table(_RECORDS, rows)))


def _rows(limits: auth_pb2.Limits, used: auth_pb2.Limits, key: str = "") -> Iterator[tuple[str, str, str, str]]:
    for field, name in _NAMES.items():
        limit = getattr(limits, field)
        if limit or (not key and getattr(used, field)):
            yield name, output.number(getattr(used, field)), output.number(limit) if limit else "no limit", key
