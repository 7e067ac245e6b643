"""What lies in a state folder, and what of it a backup takes along."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from facetmesh.cli.mesh.home import Home

STATE = "sidecar.db"
"""State and undelivered events of all services, in the embedded sidecar's SQLite file."""
LOG = "audit.db"
"""The audit log, in SQLite."""
BLOBS = "blobs"
"""Encrypted inputs and results, a folder for each tenant."""
PUBLIC = ("log.vkey", "service-keys.json")
"""Public keys: what verifies the log."""
SECRETS = "secrets"
"""A file of secrets for each service. Leaves the folder only sealed."""
_OF_THIS_MACHINE = frozenset({"admin.key", "endpoints.json", "processes.json", "mesh.lock", "logs"})
"""Written again at each start."""
_BESIDE = ("-wal", "-shm", "-journal", ".lock", ".hold")
"""Ends of the names of what belongs to a file or folder beside it."""


def blobs_folder(home: Home) -> Path | None:
    """Where the blobs lie; None when that is an object store, which keeps copies of its own."""
    location = os.environ.get("FACETMESH_BLOBS", "")
    if "://" in location:
        return None
    return Path(location) if location else home.path / BLOBS


def left_out(home: Home) -> Sequence[str]:
    """The names in the state folder that a backup does not know, sorted: the user is told of them."""
    known = {STATE, LOG, BLOBS, SECRETS, *PUBLIC, *_OF_THIS_MACHINE}
    names = {entry.name for entry in home.path.iterdir()} - known
    return sorted(name for name in names if not name.startswith(".") and not name.endswith(_BESIDE))
