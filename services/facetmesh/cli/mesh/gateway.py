"""How the gateway is run on one machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from facetmesh.cli.gateway.bootstrap import BOOTSTRAP, Sites, configuration
from facetmesh.kit import files

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

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
            # Ten seconds otherwise: who watches the log wants to see the request just made.
            "--file-flush-interval-msec", "1000",
        ]
