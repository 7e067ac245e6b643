"""`python -m facetmesh.sidecar`: one process that is the sidecar of every app of a mesh.

    --home FOLDER                       where files named in components lie
    --components FOLDER                 the components; those of the package when it is left out
    --app ID:GRPC:HTTP:CALLBACK         an app's replica: the ports of its API and its health, and
                                        the port on which it takes events; once for each

FACETMESH_SIDECAR_TOKENS holds, as JSON, {app: {"dapr_api_token": what the sidecar asks
of the app, "app_api_token": what the app asks of the sidecar}}.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from facetmesh.kit import logs, pauses, shipped
from facetmesh.kit.errors import FacetmeshError
from facetmesh.kit.lifeline import watch
from facetmesh.sidecar.mesh import Listener, StartError, open_sidecar
from facetmesh.sidecar.resources import ResourceError

_log = logging.getLogger("facetmesh.sidecar")
_TOKENS = "FACETMESH_SIDECAR_TOKENS"
_LIFELINE = "FACETMESH_LIFELINE_FD"


@dataclass(frozen=True, slots=True)
class _Arguments:
    home: Path
    components: Path
    listeners: tuple[Listener, ...]


def main() -> None:
    """Runs until SIGTERM, SIGINT or the end of the supervisor; exit code 1 when it cannot start."""
    logs.configure("sidecar")
    try:
        arguments = _arguments(sys.argv[1:])
        asyncio.run(_serve(arguments))
    except (ResourceError, StartError, FacetmeshError) as error:
        _log.critical("cannot start", extra={"detail": str(error)})
        raise SystemExit(1) from None


async def _serve(arguments: _Arguments) -> None:
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    if lifeline := os.environ.get(_LIFELINE):
        watch(int(lifeline), stopping)
    async with open_sidecar(arguments.home, arguments.components, arguments.listeners) as ports:
        for own in ports:
            _log.info("serving", extra={"app": own.app, "grpc_port": own.grpc, "http_port": own.http})
        pauses.shorten()
        await stopping.wait()
        _log.info("draining")


def _arguments(argv: list[str]) -> _Arguments:
    parser = argparse.ArgumentParser(prog="python -m facetmesh.sidecar")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--components", type=Path, default=None)
    parser.add_argument("--app", action="append", required=True, metavar="ID:GRPC:HTTP:CALLBACK")
    given = parser.parse_args(argv)
    try:
        tokens = json.loads(os.environ[_TOKENS])
        listeners = []
        for text in given.app:
            app, *ports = text.split(":")
            grpc_port, http_port, callback_port = map(int, ports)
            own = tokens[app]
            listeners.append(
                Listener(app, grpc_port, http_port, callback_port, own["dapr_api_token"], own["app_api_token"])
            )
    except KeyError as error:
        raise StartError(f"{_TOKENS}: there is nothing for {error}") from None
    except (ValueError, TypeError) as error:
        raise StartError(f"--app or {_TOKENS}: {error}") from None
    return _Arguments(given.home, given.components or shipped.folder("components", "embedded"), tuple(listeners))


if __name__ == "__main__":
    main()
