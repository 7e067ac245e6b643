"""`facetmesh audit …`."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from facetmesh.cli import logkey, output
from facetmesh.cli.commands import audit_log
from facetmesh.cli.options import options
from facetmesh.event.v1.event_pb2 import AuditEvent
from facetmesh.kit.errors import InvalidArgument
from facetmesh.verify import (
    VerificationError,
    dump_receipt,
    load_receipt,
    matches_input,
    matches_output,
    open_checkpoint,
    verify_receipt,
)

if TYPE_CHECKING:
    from facetmesh.audit.v1.audit_pb2 import LoggedEvent, Retention
    from facetmesh.cli.options import Options
    from facetmesh.client import Client

app = typer.Typer(no_args_is_help=True)
app.command()(audit_log.fsck)
app.command()(audit_log.monitor)
app.command("export-log")(audit_log.export_log)
Tenant = Annotated[
    str | None,
    typer.Option(help='Whose; by default the key\'s own tenant; "-" for all, which only platform admins may.'),
]
Filter = Annotated[
    str, typer.Option("--filter", help="Which of them, in AIP-160's language: outcome = REFUSED AND kind = Detect.")
]
LogKey = Annotated[
    Path | None,
    typer.Option(help="The file with the log's verifier key; by default the mesh's on this machine.", dir_okay=False),
]


class ExportFormat(Enum):
    """How events are exported."""

    JSONL = "jsonl"
    CSV = "csv"


@app.command()
def checkpoint(context: typer.Context, log_key: LogKey = None) -> None:
    """Show the log's newest checkpoint, and check its signature."""
    chosen = options(context)
    with chosen.public_client() as client:
        newest = client.checkpoint()
    try:
        opened = open_checkpoint(newest.note, logkey.log_key(chosen, log_key))
    except VerificationError as error:
        raise InvalidArgument(error.message, reason=error.reason) from error
    data = {"origin": opened.origin, "size": opened.size, "root_hash": opened.root.hex(), "note": newest.note}
    view = output.table(
        ("log", "entries", "root hash", "signature"), [(opened.origin, opened.size, opened.root.hex(), "holds")],
    )
    output.answer(chosen, data, view)


@app.command()
def receipt(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The receipt's name, as an answer gave it.")],
    *,
    out: Annotated[Path | None, typer.Option(help="Write the receipt into this file.", dir_okay=False)] = None,
    wait_s: Annotated[float, typer.Option(help="How long its event may take to arrive.", min=0, max=30)] = 10,
) -> None:
    """Fetch a receipt, to be kept: it can be verified without us."""
    chosen = options(context)
    with chosen.tenant_client() as client:
        text = dump_receipt(client.receipt(name, wait_s=wait_s))
    if out is None:
        output.out.print(text, end="", markup=False, highlight=False, soft_wrap=True)
        return
    out.write_text(text)
    output.answer(chosen, {"name": name, "file": str(out)}, f"{name}\nwritten to {out}")


@app.command()
def verify(
    context: typer.Context,
    receipt: Annotated[Path, typer.Argument(help="A receipt's file.", exists=True, dir_okay=False)],
    *,
    log_key: LogKey = None,
    input_: Annotated[
        list[Path] | None,
        typer.Option("--input", help="A file that should have gone in; repeatable.", exists=True, dir_okay=False),
    ] = None,
    result: Annotated[
        Path | None, typer.Option(help="The file that should have come out.", exists=True, dir_okay=False),
    ] = None,
) -> None:
    """Verify a receipt offline: nothing is asked of any service. Exit code 1 when it does not hold."""
    chosen = options(context)
    try:
        event = verify_receipt(load_receipt(receipt.read_bytes()), logkey.log_key(chosen, log_key))
    except VerificationError as error:
        raise InvalidArgument(f"The receipt does not hold: {error.message}", reason=error.reason) from error
    for image in input_ or ():
        if not matches_input(event, image.read_bytes()):
            raise InvalidArgument(f"{image} was no input of what the receipt records.", reason="INPUT_MISMATCH")
    if result is not None and not matches_output(event, result.read_bytes()):
        raise InvalidArgument(f"{result} is not what came out of what the receipt records.", reason="OUTPUT_MISMATCH")
    checked = [str(path) for path in (*(input_ or ()), *([result] if result else ()))]
    facts = [
        ("what", event.method), ("by", event.subject), ("of", event.tenant), ("about", event.resource),
        ("model", f"{event.model_version} {event.model_sha256}".strip()), ("where", event.region),
        ("when (UTC)", output.moment(event.time)),
        ("outcome", _outcome(event)),
        ("files that match", ", ".join(checked)),
    ]  # fmt: skip
    view = output.table(("the receipt holds", ""), [fact for fact in facts if fact[1]])
    output.answer(chosen, {"holds": True, "event": output.as_data(event), "matching_files": checked}, view)


@app.command()
def events(
    context: typer.Context,
    *,
    tenant: Tenant = None,
    which: Filter = "",
    limit: Annotated[int, typer.Option(help="At most this many, the newest first.", min=1, max=10_000)] = 20,
    follow: Annotated[bool, typer.Option("--follow", help="Show those to come instead, as they are logged.")] = False,
) -> None:
    """List events, the newest first."""
    chosen = options(context)
    with _client(chosen, tenant) as client:
        if follow:
            for one in client.watch_events(tenant=tenant, filter=which):
                output.answer(chosen, output.as_data(one), "  ".join(map(str, _row(one))))
            return
        logged = client.list_events(tenant=tenant, filter=which, limit=limit)
    view = output.table(("index", "time (UTC)", "id", "method", "subject", "outcome"), map(_row, logged))
    output.answer(chosen, {"events": [output.as_data(one) for one in logged]}, view)


@app.command()
def export(
    context: typer.Context,
    *,
    tenant: Tenant = None,
    which: Filter = "",
    format_: Annotated[
        ExportFormat, typer.Option("--format", help="A JSON object a line, or a table with commas."),
    ] = ExportFormat.JSONL,
    out: Annotated[Path | None, typer.Option(help="Write it into this file.", dir_okay=False)] = None,
) -> None:
    """Export all events as text, the newest first."""
    chosen = options(context)
    with _client(chosen, tenant) as client:
        parts = client.export_events(tenant=tenant, filter=which, format=format_.value)
        if out is None:
            for part in parts:
                sys.stdout.buffer.write(part)
            sys.stdout.buffer.flush()
            return
        scratch = out.with_name(f"{out.name}.part")
        with scratch.open("wb") as file:
            file.writelines(parts)
        scratch.replace(out)
    output.answer(chosen, {"file": str(out), "bytes": out.stat().st_size}, f"written to {out}")


@app.command()
def retention(
    context: typer.Context,
    tenant: Annotated[str, typer.Argument(help="Whose events.")],
    *,
    days: Annotated[int | None, typer.Option(help="How long they can be read; 0 for ever.", min=0, max=36_500)] = None,
    hold: Annotated[str | None, typer.Option(help="Let nothing expire, for this reason.")] = None,
    release: Annotated[bool, typer.Option("--release", help="End the hold.")] = False,
) -> None:
    """Show or change how long a tenant's events can be read. The log itself never expires."""
    if hold is not None and (release or not hold):
        raise InvalidArgument("A hold has a reason, and --release ends it: give one of them.", reason="HOLD_INVALID")
    chosen = options(context)
    reason = "" if release else hold
    with chosen.admin_client() as client:
        if days is None and reason is None:
            found = client.get_retention(tenant)
        else:
            found = client.update_retention(tenant, days=days, hold_reason=reason)
    output.answer(chosen, output.as_data(found), _retention_view(found))


def _retention_view(found: Retention) -> str:
    return output.facts({
        "tenant": found.name.removesuffix("/retention"),
        "kept": f"{found.retention_days} days" if found.retention_days else "for ever",
        "held": found.hold_reason if found.legal_hold else "no",
    })  # fmt: skip


def _client(chosen: Options, tenant: str | None) -> Client:
    return chosen.admin_client() if tenant is not None else chosen.tenant_client()


def _row(one: LoggedEvent) -> tuple[object, ...]:
    event = one.event
    return (
        one.index, output.moment(event.time), event.id, event.method.rpartition("/")[2], event.subject, _outcome(event)
    )


def _outcome(event: AuditEvent) -> str:
    """ok, or what it was instead and why."""
    return f"{AuditEvent.Outcome.Name(event.outcome).removeprefix('OUTCOME_').lower()} {event.reason}".strip()
