"""What a mesh is made of."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class Sidecar(StrEnum):
    """Who provides Dapr's API."""

    EMBEDDED = "embedded"
    """Ours, one process over one SQLite file."""
    DAPRD = "daprd"
    """Dapr's own, one for each service, over Redis."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What a mesh is made of."""

    sidecar: Sidecar = Sidecar.EMBEDDED
    components: Path | None = None
    """The folder of Dapr's components; the one that comes with facetmesh, if None."""
    gateway: bool = False
    """Whether Envoy stands in front of it."""
