"""`facetmesh audit …`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from facetmesh.cli import output
from facetmesh.cli.options import options
from facetmesh.event.v1.event_pb2 import AuditEvent
from facetmesh.kit.errors import FailedPrecondition, InvalidArgument
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
    from facetmesh.cli.options import Options

app = typer.Typer(no_args_is_help=True)
LogKey = Annotated[
    Path | None,
    typer.Option(help="The file with the log's verifier key; the one of the mesh on this machine.", dir_okay=False),
]


@app.command()
def checkpoint(context: typer.Context, log_key: LogKey = None) -> None:
    """Show the log's newest checkpoint, and check its signature."""
    chosen = options(context)
    with chosen.public_client() as client:
        newest = client.checkpoint()
    try:
        opened = open_checkpoint(newest.note, _log_key(chosen, log_key))
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
        event = verify_receipt(load_receipt(receipt.read_bytes()), _log_key(chosen, log_key))
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
        ("outcome", f"{_outcome(event)} {event.code} {event.reason}".strip()),
        ("files that match", ", ".join(checked)),
    ]  # fmt: skip
    view = output.table(("the receipt holds", ""), [fact for fact in facts if fact[1]])
    output.answer(chosen, {"holds": True, "event": output.as_data(event), "matching_files": checked}, view)


@app.command()
def events(
    context: typer.Context,
    *,
    tenant: Annotated[str | None, typer.Option(help='Whose; "-" for all, which only platform admins may.')] = None,
    limit: Annotated[int, typer.Option(help="At most this many, the newest first.", min=1, max=10_000)] = 20,
) -> None:
    """List events, the newest first."""
    chosen = options(context)
    with chosen.admin_client() if tenant is not None else chosen.tenant_client() as client:
        logged = client.list_events(tenant=tenant, limit=limit)
    rows = (
        (one.index, output.moment(one.event.time), one.event.method.rpartition("/")[2], one.event.subject,
         f"{_outcome(one.event)} {one.event.reason}")
        for one in logged
    )  # fmt: skip
    view = output.table(("index", "time (UTC)", "method", "subject", "outcome"), rows)
    output.answer(chosen, {"events": [output.as_data(one) for one in logged]}, view)


def _outcome(event: AuditEvent) -> str:
    return AuditEvent.Outcome.Name(event.outcome).removeprefix("OUTCOME_").lower()


def _log_key(chosen: Options, file: Path | None) -> str:
    path = file or chosen.home.log_key
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        raise FailedPrecondition(
            f"The log's verifier key is not at {path}: give its file with --log-key.", reason="LOG_KEY_MISSING",
        ) from None
