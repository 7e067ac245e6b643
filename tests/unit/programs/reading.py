"""A program that reads files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from facetmesh.kit.errors import InvalidArgument
from facetmesh.runners.tasks import Reply

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from facetmesh.runners.tasks import Context, Task


def read(_: Context, arguments: Mapping[str, Any], __: Sequence[bytes]) -> Reply:
    """Replies a file's content."""
    try:
        return Reply(blobs=[Path(arguments["path"]).read_bytes()])
    except OSError as error:
        raise InvalidArgument("It cannot be read.", reason="NOT_READABLE") from error


TASKS: Mapping[str, Task] = {"read": read}
