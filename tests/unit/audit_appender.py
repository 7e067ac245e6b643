"""Appends events to a log until it is killed, or has appended some batches.

It says on stdout what was acknowledged, and each checkpoint.

python -m tests.unit.audit_appender STORE KEYS

With no arguments it reads three lines from stdin again and again, STORE, KEYS and BATCHES, and forks
a process that appends to that store: each is there in a moment. It begins when another line comes.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import sys
from pathlib import Path

from tests.unit.audit_world import World
from tests.unit.conftest import Entry

from facetmesh.event.v1.event_pb2 import AuditEvent, SignedEvent


async def main(store: str, keys: dict[str, str], batches: int = 0) -> None:
    """Appends batches of random size, with repeats among them."""
    world = World.at(store)
    world.state.entries = {name: Entry(bytes.fromhex(value), "1") for name, value in keys.items()}
    async with world.log() as (log, _):
        batch: list[bytes] = []
        for _ in range(batches) if batches else itertools.count():
            batch = [*batch[:2], *(world.signed() for _ in range(random.randint(1, 40)))]  # noqa: S311 - no secret
            verdicts = await log.ingest(batch)
            if any(verdict is not None for verdict in verdicts):
                raise SystemExit(f"refused: {verdicts}")
            ids = [AuditEvent.FromString(SignedEvent.FromString(one).event).id for one in batch]
            say({"ids": ids, "checkpoint": log.checkpoint})


def say(what: dict[str, object]) -> None:
    """Writes a line, in one piece, so that no reader sees half an acknowledgement as a whole one."""
    os.write(1, json.dumps(what).encode() + b"\n")


def serve() -> None:
    """Forks an appender for each store on stdin; says its process id first, and at its end how it ended."""
    while store := sys.stdin.readline().strip():
        keys, batches = Path(sys.stdin.readline().strip()), int(sys.stdin.readline())
        child = os.fork()
        if not child:
            say({"pid": os.getpid()})
            os.read(0, 1)
            asyncio.run(main(store, json.loads(keys.read_text()), batches))
            return
        say({"ended": os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])})


if __name__ == "__main__":
    if len(sys.argv) == 1:
        serve()
    else:
        asyncio.run(main(sys.argv[1], json.loads(Path(sys.argv[2]).read_text())))
