"""`facetmesh init`, `up`, `down` and `status`. What they do needs the services' packages: imported when called."""

from __future__ import annotations

import asyncio
from pathlib import Path  # noqa: TC003 - typer needs it at run time
from typing import Annotated

import typer

from facetmesh.cli import interrupt, output
from facetmesh.cli.mesh.layout import Layout, Sidecar
from facetmesh.cli.mesh.ports import DEFAULT_BASE
from facetmesh.cli.options import options


def init(context: typer.Context) -> None:
    """Make the state folder and its secrets, and start nothing: `up` does so by itself, other ways to run need it."""
    from facetmesh.cli.mesh.secrets import ensure  # noqa: PLC0415 - the base install lacks what it needs

    chosen = options(context)
    chosen.home.prepare()
    with chosen.home.owned():
        ensure(chosen.home)
    data = {"home": str(chosen.home.path), "admin_key_file": str(chosen.home.admin_key)}
    output.answer(chosen, data, output.facts({"state": chosen.home.path, "admin key": chosen.home.admin_key}))


def up(
    context: typer.Context,
    *,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return once all serve; leave it running.")] = False,
    port_base: Annotated[
        int, typer.Option(help="The services listen from this port + 1 on; 0 finds free ones.", min=0, max=65_000),
    ] = DEFAULT_BASE,
    sidecar: Annotated[
        Sidecar, typer.Option(help="Who provides Dapr's API: ours, or one daprd for each service, over Redis."),
    ] = Sidecar.EMBEDDED,
    components: Annotated[
        Path | None, typer.Option(help="A folder of Dapr components of your own.", exists=True, file_okay=False),
    ] = None,
    gateway: Annotated[
        bool, typer.Option("--gateway", help="Put Envoy in front, at --port-base: REST, gRPC-Web, TLS, limits."),
    ] = False,
    ready_fd: Annotated[int | None, typer.Option(hidden=True, help="Where `up --detach` waits for news.")] = None,
) -> None:
    """Start a mesh on this machine: the four services and their sidecars."""
    from facetmesh.cli.mesh import detached, foreground  # noqa: PLC0415 - the base install lacks what it needs

    chosen = options(context)
    layout = Layout(sidecar, components.resolve() if components else None, gateway)
    if detach:
        detached.start(chosen, port_base, layout)
        _print_endpoints(context)
        return
    if ready_fd is not None:
        interrupt.run(detached.supervise(chosen.home, port_base, layout, ready_fd))
        return
    try:
        interrupt.run(foreground.supervise(chosen.home, port_base, layout, lambda: _print_endpoints(context)))
    except KeyboardInterrupt:
        output.err.print("stopped")


def down(context: typer.Context) -> None:
    """Stop the mesh on this machine; returns when nothing of it is left."""
    from facetmesh.cli.mesh import detached  # noqa: PLC0415 - the base install lacks what it needs

    chosen = options(context)
    with output.err.status("stopping"):
        stopped = asyncio.run(detached.stop(chosen.home))
    view = f"The mesh on {chosen.home.path} was stopped." if stopped else f"No mesh runs on {chosen.home.path}."
    output.answer(chosen, {"stopped": stopped}, view)


def status(context: typer.Context) -> None:
    """Show the processes of the mesh and whether they serve. Exit code 1 unless all do."""
    from facetmesh.cli.mesh.state import states  # noqa: PLC0415 - the base install lacks what it needs

    chosen = options(context)
    found = asyncio.run(states(chosen.home))
    serving = bool(found) and all(one.serving for one in found)
    data = {
        "home": str(chosen.home.path), "running": bool(found), "serving": serving,
        "processes": [
            {"name": one.name, "pid": one.pid, "state": one.state, "address": one.address,
             "memory_mib": one.memory_mib, "uptime_s": one.uptime_s}
            for one in found
        ],
    }  # fmt: skip
    rows = ((one.name, one.state, one.address, one.pid, f"{one.memory_mib} MiB", f"{one.uptime_s} s") for one in found)
    view = output.table(("process", "state", "address", "pid", "memory", "up for"), rows)
    output.answer(chosen, data, view if found else f"No mesh runs on {chosen.home.path}: `facetmesh up` starts one.")
    if not serving:
        raise typer.Exit(1)


def _print_endpoints(context: typer.Context) -> None:
    chosen = options(context)
    addresses = dict(chosen.home.read(chosen.home.endpoints))
    data = {"endpoints": addresses, "home": str(chosen.home.path), "admin_key_file": str(chosen.home.admin_key)}
    called = chosen.called
    then = f"`{called} tenants onboard TENANT --out FILE` makes a tenant and its key; `{called} down` stops the mesh"
    view = output.facts({**addresses, "state": chosen.home.path, "admin key": chosen.home.admin_key, "next": then})
    output.answer(chosen, data, view)
