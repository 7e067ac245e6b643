"""`facetmesh consents …`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path  # noqa: TC003 - typer reads the annotations at run time
from typing import TYPE_CHECKING, Annotated

import typer

from facetmesh.cli import output
from facetmesh.cli.options import options
from facetmesh.fusion.v1.consent_pb2 import Consent

if TYPE_CHECKING:
    from facetmesh.cli.options import Options

app = typer.Typer(no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="Its name or id.")]


@app.command()
def create(
    context: typer.Context,
    photos: Annotated[
        list[Path],
        typer.Argument(help="The photos whose face may be taken; they stay here.", exists=True, dir_okay=False),
    ],
    *,
    subject: Annotated[str, typer.Option(help="Who agreed: a reference of your own to a person, or a name.")],
    purpose: Annotated[str, typer.Option(help="What for, in the words that the person agreed to.")],
    evidence: Annotated[
        Path, typer.Option(help="What proves it, such as the signed form; it stays here.", exists=True, dir_okay=False)
    ],
    days: Annotated[float, typer.Option(help="For how many days it can be used.", min=0, max=3652)],
    face: Annotated[int, typer.Option(help="Which face of each photo; 0 is the largest.", min=0)] = 0,
) -> None:
    """Keep what a person agreed to: without it, no face is fused."""
    chosen = options(context)
    with chosen.tenant_client() as client:
        consent = client.create_consent(
            [photo.read_bytes() for photo in photos], subject=subject, purpose=purpose, evidence=evidence.read_bytes(),
            expire_time=datetime.now(UTC) + timedelta(days=days), face_index=face,
        )
    _show(chosen, consent)


@app.command("list")
def list_(context: typer.Context) -> None:
    """List the tenant's consents, without whose they are."""
    chosen = options(context)
    with chosen.tenant_client() as client:
        consents = client.list_consents()
    rows = [(one.name, _state(one), one.purpose, output.moment(one.expire_time)) for one in consents]
    view = output.table(("consent", "state", "purpose", "expires (UTC)"), rows)
    output.answer(chosen, {"consents": [output.as_data(one) for one in consents]}, view)


@app.command()
def show(context: typer.Context, consent: Name) -> None:
    """Show a consent. The audit log records that it was read."""
    chosen = options(context)
    with chosen.tenant_client() as client:
        _show(chosen, client.get_consent(consent))


@app.command()
def revoke(context: typer.Context, consent: Name) -> None:
    """End a consent for good: what is being made with it is not stored."""
    chosen = options(context)
    with chosen.tenant_client() as client:
        _show(chosen, client.revoke_consent(consent))


def _show(chosen: Options, consent: Consent) -> None:
    view = output.facts({
        "consent": consent.name, "state": _state(consent), "subject": consent.subject, "purpose": consent.purpose,
        "expires (UTC)": output.moment(consent.expire_time), "sha256": consent.sha256,
    })  # fmt: skip
    output.answer(chosen, output.as_data(consent), view)


def _state(consent: Consent) -> str:
    return Consent.State.Name(consent.state).removeprefix("STATE_").lower()
