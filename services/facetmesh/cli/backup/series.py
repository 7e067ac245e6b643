"""Backups one after the other, in a folder: each complete in itself, the oldest removed."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from facetmesh.cli.backup.manifest import NAME
from facetmesh.cli.backup.source import newest
from facetmesh.cli.backup.take import Job, take

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from facetmesh.cli.backup.manifest import Manifest

_PARTIAL = ".partial"


@dataclass(frozen=True, slots=True)
class Taken:
    """One backup of a series."""

    folder: Path
    manifest: Manifest
    seconds: float
    """How long it took."""


def take_next(job: Job, folder: Path, keep: int) -> Taken:
    """Takes the next backup of a series; blobs that the one before has cost no room.

    Args:
        job: What is backed up; its own folder is not used.
        folder: Where the series lies.
        keep: How many stay, this one too.

    Raises:
        FacetmeshError: What `take` raises.
        OSError: It cannot be written.
    """
    began = time.monotonic()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for left in folder.glob(f"*{_PARTIAL}"):
        shutil.rmtree(left)
    target = folder / f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}Z"
    scratch = target.with_name(target.name + _PARTIAL)
    before = newest(folder)
    made = take(replace(job, folder=scratch, before=before))
    scratch.rename(target)
    for old in taken(folder)[:-keep]:
        shutil.rmtree(old)
    return Taken(target, made, time.monotonic() - began)


def taken(folder: Path) -> Sequence[Path]:
    """The complete backups of a series, the oldest first."""
    return sorted(path.parent for path in folder.glob(f"[0-9]*Z/{NAME}"))
