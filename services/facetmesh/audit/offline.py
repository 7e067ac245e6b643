"""`python -m facetmesh.audit.offline`: checks a log in its store, served or not, such as one out of a backup.

    --log FILE            the log, SQLite
    --url URL             the log in PostgreSQL instead; libpq finds the password (PGPASSFILE)
    --secrets FILE        audit's secrets: its key opens the events
    --state FILE          the embedded sidecar's state, where the wrapped data keys lie
                          without both, no event is opened, and only checksums say that they are what was written
    --size N --root HEX   an older checkpoint's: the log must be one that continues it

Answers with a JSON object: {"size": entries, "root": hex, "opened": whether events were decrypted,
"problems": [{"where", "what"}]}.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sqlite3
import sys
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from facetmesh.audit.connect import connector
from facetmesh.audit.database import LogDatabase
from facetmesh.audit.fsck import Problem, fsck
from facetmesh.audit.merkle import Tree
from facetmesh.kit.errors import FacetmeshError, Unavailable
from facetmesh.kit.keks import Keks
from facetmesh.kit.keyring import Keyring

if TYPE_CHECKING:
    from collections.abc import Sequence

    from facetmesh.audit.connection import Connection

_PREFIX = "audit||"
"""Dapr's state stores put the app before the key."""


@dataclass(frozen=True, slots=True)
class _Entry:
    value: bytes
    etag: str


class _StateFile:
    """Audit's state in a file, which is only read."""

    def __init__(self, file: Path) -> None:
        self._db = sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)

    async def get(self, key: str) -> _Entry | None:
        row = self._db.execute("SELECT value, etag FROM state WHERE key = ?", (_PREFIX + key,)).fetchone()
        return None if row is None else _Entry(bytes(row[0]), row[1])

    async def get_many(self, keys: Sequence[str]) -> dict[str, _Entry]:
        found = {key: await self.get(key) for key in keys}
        return {key: entry for key, entry in found.items() if entry is not None}

    async def put(self, key: str, value: bytes, *, etag: str | None = None, create: bool = False) -> None:
        raise NotImplementedError

    async def delete(self, key: str) -> None:
        raise NotImplementedError


def main() -> None:
    """Checks the log. Exit code 1 when it cannot be read at all."""
    parser = argparse.ArgumentParser(prog="python -m facetmesh.audit.offline")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--log", type=Path, default=Path())
    where.add_argument("--url", default="")
    parser.add_argument("--secrets", type=Path)
    parser.add_argument("--state", type=Path)
    parser.add_argument("--size", type=int, default=0)
    parser.add_argument("--root", type=bytes.fromhex, default=b"")
    given = parser.parse_args()
    if not given.url and not given.log.is_file():
        sys.stderr.write(f"{given.log}: there is no log\n")
        raise SystemExit(1)
    try:
        keyring = _keyring(given.secrets, given.state)
        with closing(connector(given.log, given.url, patient=True)()) as connection:
            size, root, problems = _checked(connection, keyring, given.size, given.root)
    except Unavailable as error:
        size, root, problems = 0, b"", [Problem("store", str(error.__cause__ or error))]
    except (FacetmeshError, sqlite3.Error, OSError) as error:
        sys.stderr.write(f"{given.url or given.log}: {error}\n")
        raise SystemExit(1) from None
    sys.stdout.write(json.dumps({
        "size": size, "root": root.hex(), "opened": keyring is not None,
        "problems": [asdict(problem) for problem in problems],
    }) + "\n")  # fmt: skip


def _checked(
    connection: Connection, keyring: Keyring | None, size: int, root: bytes
) -> tuple[int, bytes, list[Problem]]:
    """The log's size, its root hash, and what is wrong with it."""
    database = LogDatabase(connection)
    problems = asyncio.run(fsck(database, keyring))
    head = database.stored_head()
    if not problems and size and not _continues(database, size, root):
        problems = [Problem("checkpoint", f"the log does not continue the one of {size} entries")]
    return head.size, head.root, problems


def _keyring(secrets: Path | None, state: Path | None) -> Keyring | None:
    if secrets is None or state is None:
        return None
    return Keyring(_StateFile(state), Keks.parse(json.loads(secrets.read_text())["data-kek"]))


def _continues(database: LogDatabase, size: int, root: bytes) -> bool:
    return size <= database.stored_head().size and Tree(database, size).root() == root


if __name__ == "__main__":
    main()
