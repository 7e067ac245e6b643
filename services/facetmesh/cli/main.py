"""The `facetmesh` command."""

from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path  # noqa: TC003 - typer reads the annotations at run time
from typing import TYPE_CHECKING, Annotated

import typer

from facetmesh import __version__
from facetmesh.cli import output
from facetmesh.cli.commands import (
    audit,
    backup,
    consents,
    demo,
    detect,
    doctor,
    fuse,
    fusions,
    images,
    keys,
    mesh,
    models,
    policy,
    rollout,
    tenants,
    usage,
)
from facetmesh.cli.mesh.home import Home
from facetmesh.cli.options import Options
from facetmesh.kit.errors import FacetmeshError, FailedPrecondition, Internal

if TYPE_CHECKING:
    from collections.abc import Sequence

_FAILED = 1
_JSON = "--json"
_FLAGS = (_JSON, "--tls")
_VALUED = ("--home", "--key-file", "--address", "--ca-file", "--cert-file")
_DEBUG = "FACETMESH_DEBUG"


app = typer.Typer(
    name="facetmesh", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    help="Multi-tenant vision inference that can be answered for. The options below may stand anywhere.",
)
app.command("init")(mesh.init)
app.command("up")(mesh.up)
app.command("down")(mesh.down)
app.command("status")(mesh.status)
app.command("backup")(backup.backup)
app.command("restore")(backup.restore)
app.command("demo")(demo.demo)
app.command("doctor")(doctor.doctor)
app.add_typer(tenants.app, name="tenants", help="Create, list, suspend and delete tenants.")
app.add_typer(keys.app, name="keys", help="Create, list, rotate and revoke API keys.")
app.add_typer(policy.app, name="policy", help="Try out, set and explain policies.")
app.command("usage")(usage.usage)
app.add_typer(models.app, name="models", help="The catalogue, and the models that a tenant has.")
app.add_typer(rollout.app, name="rollout", help="Give a model's new version its calls, step by step.")
app.command("detect")(detect.detect)
app.add_typer(images.app, name="images", help="Upload pictures once, and name them in fusions.")
app.add_typer(consents.app, name="consents", help="Keep, list and revoke what people agreed to.")
app.command("fuse")(fuse.fuse)
app.add_typer(fusions.app, name="fusions", help="Follow, stop, download, look up and delete fusions.")
app.add_typer(audit.app, name="audit", help="Read the audit log, and verify what it says.")


def _version(wanted: bool) -> None:  # noqa: FBT001 - typer's signature
    if wanted:
        output.out.print(__version__, highlight=False)
        raise typer.Exit


@app.callback()
def _globals(  # noqa: PLR0913 - one for each global option
    context: typer.Context,
    *,
    json: Annotated[bool, typer.Option(_JSON, help="Answer in JSON.")] = False,
    home: Annotated[
        Path | None, typer.Option(help="The state folder.", envvar="FACETMESH_HOME", file_okay=False),
    ] = None,
    key_file: Annotated[
        Path | None, typer.Option(help="A file with the API key; else FACETMESH_KEY holds it.", dir_okay=False),
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="host:port of a gateway; else the mesh on this machine.",
                                 envvar="FACETMESH_ADDRESS"),
    ] = None,
    tls: Annotated[bool, typer.Option("--tls", help="Speak to the gateway encrypted.", envvar="FACETMESH_TLS")] = False,
    ca_file: Annotated[
        Path | None, typer.Option(help="PEM of the authority to trust; implies --tls.", envvar="FACETMESH_CA_FILE"),
    ] = None,
    cert_file: Annotated[
        Path | None, typer.Option(help="PEM of your own certificate and its private key, where one is asked for; "
                                       "implies --tls.", envvar="FACETMESH_CERT_FILE"),
    ] = None,
    version: Annotated[  # noqa: ARG001 - its callback does it
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    context.obj = Options(
        json=json, home=Home(home.absolute()) if home else Home.default(), key_file=key_file, address=address,
        ca_file=ca_file, tls=tls, cert_file=cert_file,
    )


def main() -> None:
    """Runs the command line. Ends with 0, with 1 for what failed, 2 for wrong usage, 130 when interrupted."""
    ours, rest = _parted(sys.argv[1:])
    as_json = _JSON in ours
    try:
        app([*ours, *rest])
    except BrokenPipeError:
        # `facetmesh … | head`: nobody reads on, which is no failure of ours.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        if os.environ.get(_DEBUG):
            raise
        output.complain(_explained(error), as_json=as_json)
        sys.exit(_FAILED)


def _parted(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The global options, which typer knows only before the command but people write anywhere; and the rest."""
    ours: list[str] = []
    rest: list[str] = []
    coming = iter(arguments)
    for argument in coming:
        if argument == "--":
            rest += [argument, *coming]
        elif argument in _VALUED:
            ours += [argument, *itertools.islice(coming, 1)]
        elif argument in _FLAGS or argument.startswith(tuple(f"{option}=" for option in _VALUED)):
            ours.append(argument)
        else:
            rest.append(argument)
    return ours, rest


def _explained(error: Exception) -> FacetmeshError:
    """The error as one that says what to do."""
    if isinstance(error, FacetmeshError):
        return error
    if isinstance(error, ModuleNotFoundError) and not (error.name or "").startswith("facetmesh"):
        return FailedPrecondition(
            f'This needs {error.name}, which the base install leaves out: run `pip install "facetmesh[serve]"`.',
            reason="EXTRA_MISSING",
        )
    if isinstance(error, OSError) and error.filename:
        return FailedPrecondition(f"{error.filename}: {error.strerror}.", reason="FILE_PROBLEM")
    return Internal(
        f"{type(error).__name__}: {error}. This is a bug: please report it with what {_DEBUG}=1 shows.", reason="BUG",
    )


if __name__ == "__main__":
    main()
