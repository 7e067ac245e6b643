"""Where the log is: which database, and how it is reached."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from facetmesh.audit.sqlite import SqliteConnection
from facetmesh.kit.errors import FailedPrecondition

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from facetmesh.audit.connection import Connection

PASSWORD_SECRET = "log-database-password"  # noqa: S105 - a name, no secret
"""The secret with the password of the log's database user, where it has one."""


def connector(file: Path, url: str, password: str | None = None, *, patient: bool = False) -> Callable[[], Connection]:
    """What makes connections with the log's database.

    Args:
        file: The SQLite file, used where url is empty.
        url: postgresql://user@host/database.
        password: The user's; None where none is asked for.
        patient: Whether a transaction may rest for long: for who only reads.

    Raises:
        FailedPrecondition: The URL is none of PostgreSQL's or has a password in it, or the driver is missing.
    """
    if not url:
        return lambda: SqliteConnection(file)
    parts = urlsplit(url)
    if parts.scheme not in {"postgresql", "postgres"}:
        raise FailedPrecondition("FACETMESH_LOG_URL must begin with postgresql://.", reason="LOG_URL_INVALID")
    if parts.password is not None or "password=" in parts.query:
        raise FailedPrecondition(
            f"FACETMESH_LOG_URL has a password in it, which everybody on this machine can read: "
            f"put it into the secret {PASSWORD_SECRET}.", reason="LOG_URL_HAS_PASSWORD",
        )
    try:
        from facetmesh.audit.postgres import PostgresConnection  # noqa: PLC0415 - an extra brings its driver
    except ImportError:
        raise FailedPrecondition(
            'The log in PostgreSQL needs its driver: run `pip install "facetmesh[postgres]"`.', reason="EXTRA_MISSING",
        ) from None
    return lambda: PostgresConnection(url, password, patient=patient)
