"""Folders of the checkout that the wheel carries too. Standard library only."""

from __future__ import annotations

from pathlib import Path

from facetmesh.kit import errors

_PACKAGE = Path(__file__).resolve().parent.parent


def folder(*parts: str) -> Path:
    """The folder of that name, such as ("components", "redis"): the package's, else that of the checkout it runs from.

    Raises:
        FailedPrecondition: NOT_SHIPPED.
    """
    for root in (_PACKAGE / "_data", _PACKAGE.parent.parent):
        found = root.joinpath(*parts)
        if found.is_dir():
            return found
    raise errors.FailedPrecondition(
        f"This installation lacks {'/'.join(parts)}: install facetmesh again.", reason="NOT_SHIPPED"
    )
