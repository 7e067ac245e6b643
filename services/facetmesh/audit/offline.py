"""`python -m facetmesh.audit.offline`: checks a log that nobody serves, such as one out of a backup.

    --log FILE            the log, SQLite
    --secrets FILE        audit's secrets: its key opens the events
    --state FILE          the embedded sidecar's state, where the wrapped data keys lie; without, no event is opened
    --size N --root HEX   an older checkpoint's: the log must be one that continues it

Answers with a JSON object: {"size": entries, "root": hex, "problems": [{"where", "what"}]}.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import sqlite3
import sys
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

from facetmesh.audit.database import LogDatabase
from facetmesh.audit.fsck import Problem, fsck
from facetmesh.audit.merkle import Tree
from facetmesh.kit.errors import FacetmeshError
from facetmesh.kit.keyring import Keyring

_PREFIX = "audit||"
"""Dapr's state stores put the app before the key."""


@dataclass(frozen=True, slots=True)
class _Entry:
    value: bytes
    etag: str


class _StateFile:
    """Audit's state in a file that nobody serves, or nowhere. It is only read."""

    def __init__(self, file: Path | None) -> None:
        self._db = sqlite3.connect(file) if file else None

    async def get(self, key: str) -> _Entry | None:
        if self._db is None:
            return None
        row = self._db.execute("SELECT value, etag FROM state WHERE key = ?", (_PREFIX + key,)).fetchone()
        return None if row is None else _Entry(bytes(row[0]), row[1])

    async def put(self, key: str, value: bytes, *, create: bool = False) -> None:
        raise NotImplementedError

    async def delete(self, key: str) -> None:
        raise NotImplementedError


def main() -> None:
    """Checks the log. Exit code 1 when it cannot be read at all."""
    parser = argparse.ArgumentParser(prog="python -m facetmesh.audit.offline")
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--secrets", type=Path, required=True)
    parser.add_argument("--state", type=Path)
    parser.add_argument("--size", type=int, default=0)
    parser.add_argument("--root", type=bytes.fromhex, default=b"")
    given = parser.parse_args()
    try:
        kek = base64.b64decode(json.loads(given.secrets.read_text())["data-kek"])
        with closing(LogDatabase(given.log)) as database:
            problems = asyncio.run(fsck(database, Keyring(_StateFile(given.state), kek)))
            head = database.stored_head()
            if not problems and given.size and not _continues(database, given.size, given.root):
                problems = [Problem("checkpoint", f"the log does not continue the one of {given.size} entries")]
    except (FacetmeshError, sqlite3.Error) as error:
        sys.stderr.write(f"{given.log}: {error}\n")
        raise SystemExit(1) from None
    sys.stdout.write(json.dumps({
        "size": head.size, "root": head.root.hex(), "problems": [asdict(problem) for problem in problems],
    }) + "\n")  # fmt: skip


def _continues(database: LogDatabase, size: int, root: bytes) -> bool:
    return size <= database.stored_head().size and Tree(database, size).root() == root


if __name__ == "__main__":
    main()
