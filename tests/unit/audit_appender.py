"""Appends events to a log until it is killed, or has appended some batches.

It says on stdout what was acknowledged, and each checkpoint.

python -m tests.unit.audit_appender STORE KEYS [BATCHES]
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import sys
from pathlib import Path

from tests.unit.audit_world import World
from tests.unit.conftest import Entry

from facetmesh.event.v1.event_pb2 import AuditEvent, SignedEvent


async def main(store: str, keys: dict[str, str], batches: int) -> None:
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
            # One write, so that the reader never sees half an acknowledgement as a whole one.
            sys.stdout.write(json.dumps({"ids": ids, "checkpoint": log.checkpoint}) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], json.loads(Path(sys.argv[2]).read_text()), int((*sys.argv, "0")[3])))
