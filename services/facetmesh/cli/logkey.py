"""The audit log's verifier key, as the command line finds it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from facetmesh.kit.errors import FailedPrecondition

if TYPE_CHECKING:
    from pathlib import Path

    from facetmesh.cli.options import Options


def log_key(chosen: Options, file: Path | None) -> str:
    """The verifier key in a file; of the mesh on this machine when None.

    Raises:
        FailedPrecondition: LOG_KEY_MISSING.
    """
    path = file or chosen.home.log_key
    try:
        return path.read_text(errors="replace").strip()
    except FileNotFoundError:
        raise FailedPrecondition(
            f"The log's verifier key is not at {path}: give its file with --log-key.", reason="LOG_KEY_MISSING",
        ) from None
