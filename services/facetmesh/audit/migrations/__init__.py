"""The tables, as numbered SQL files of each dialect. A step that was taken is never changed: the next one is added.

A file may hold several statements. Which steps were taken stands in the table
`migrations`, and each is taken in a transaction with its row.
"""

from __future__ import annotations

import time
from importlib import resources
from typing import TYPE_CHECKING

from facetmesh.audit.bookkeeping import fill_checksums
from facetmesh.kit.errors import FailedPrecondition

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from facetmesh.audit.connection import Connection

_COMPLETED: Mapping[int, Callable[[Connection], None]] = {4: fill_checksums}
"""What SQL cannot do for a step."""


def steps(dialect: str) -> list[str]:
    """The SQL of each step, in order.

    Args:
        dialect: `sqlite` or `postgresql`.
    """
    folder = resources.files(__name__) / dialect
    return [file.read_text() for file in sorted(folder.iterdir(), key=lambda file: file.name)]


def migrate(connection: Connection) -> None:
    """Takes the steps that are missing, all or none.

    Raises:
        FailedPrecondition: A newer version of facetmesh wrote the log.
        Unavailable: The store does not work.
    """
    known = steps(connection.dialect)
    with connection.writing():
        connection.script("CREATE TABLE IF NOT EXISTS migrations (version BIGINT PRIMARY KEY, time_s BIGINT)")
        ((done,),) = connection.query("SELECT count(*) FROM migrations")
        if done > len(known):
            raise FailedPrecondition("A newer version of facetmesh wrote this log.", reason="LOG_TOO_NEW")
        for version, script in enumerate(known[done:], start=done + 1):
            connection.script(script)
            if version in _COMPLETED:
                _COMPLETED[version](connection)
            connection.insert("migrations", [(version, int(time.time()))])
