"""What lies in a state folder, and what of it a backup takes along."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from facetmesh.cli.mesh.ports import SERVICES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from facetmesh.cli.mesh.home import Home

STATE = "sidecar.db"
"""State and undelivered events of all services, in the embedded sidecar's SQLite file."""
REDIS_STATE = "redis/appendonly.aof"
"""The same under daprd, in the mesh's own Redis."""
REDIS_CONFIGURATION = "redis/redis.conf"
"""Says where that Redis listens, and its password."""
JOURNALS = tuple(f"{service}.journal" for service in SERVICES)
"""Audit events that are not yet with the sidecar: a SQLite file for each service."""
LOG = "audit.db"
"""The audit log, in SQLite."""
BLOBS = ("blobs", "model-blobs")
"""Encrypted inputs and results, and tenants' own models: a folder for each tenant."""
PUBLIC = ("log.vkey", "service-keys.json")
"""Public keys: what verifies the log."""
SECRETS = "secrets"
"""A file of secrets for each service. Leaves the folder only sealed."""
_OF_THIS_MACHINE = frozenset({
    "admin.key", "endpoints.json", "processes.json", "mesh.lock", "logs", "sentry", "gateway",
})  # fmt: skip
"""Written again at each start."""
_BESIDE = ("-wal", "-shm", "-journal", ".lock", ".hold", ".in-hand")
"""Ends of the names of what belongs to a file or folder beside it, or to a process."""


def blob_folders(home: Home) -> Mapping[str, Path]:
    """Where the blobs lie, by what a backup calls them; none where an object store keeps them."""
    location = os.environ.get("FACETMESH_BLOBS", "")
    if "://" in location:
        return {}
    return {BLOBS[0]: Path(location)} if location else {name: home.path / name for name in BLOBS}


def log_is_here() -> bool:
    """Whether the audit log is in the state folder, and not in PostgreSQL, which has backups of its own."""
    return not os.environ.get("FACETMESH_LOG_URL")


def is_on_redis(home: Home) -> bool:
    """Whether the mesh that runs, or else the only one that ever ran here, keeps its state in Redis."""
    from facetmesh.cli.mesh.supervisor import noted  # noqa: PLC0415 - the base install lacks what it needs

    running = noted(home)
    if running:
        return "redis" in running
    return (home.path / REDIS_CONFIGURATION).exists() and not (home.path / STATE).exists()


def left_out(home: Home) -> Sequence[str]:
    """The names in the state folder that a backup does not know, sorted: the user is told of them."""
    state = "redis" if is_on_redis(home) else STATE
    known = {state, LOG, *JOURNALS, *BLOBS, SECRETS, *PUBLIC, *_OF_THIS_MACHINE}
    names = {entry.name for entry in home.path.iterdir()} - known
    return sorted(name for name in names if not name.startswith(".") and not name.endswith(_BESIDE))
