"""An app in a process of its own, to be killed: writes the id of each event to a file, then says that it has it.

    python consumer.py PORT FILE

An event whose id begins with "poison" ends the process.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from facetmesh.kit.dapr import Disposition, Event, EventReceiver, InHand

if TYPE_CHECKING:
    from collections.abc import Sequence


async def main(port: int, file: str) -> None:
    """Takes events until it is killed."""
    handle = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    async def handle_events(events: Sequence[Event]) -> Sequence[Disposition]:
        if any(event.id.startswith("poison") for event in events):
            os._exit(1)
        os.write(handle, "".join(f"{event.id}\n" for event in events).encode())
        return [Disposition.OK] * len(events)

    receiver = EventReceiver(
        {"single": handle_events, "bulk": handle_events}, app_api_token=os.environ["APP_API_TOKEN"],
        in_hand=InHand(Path(f"{file}.in-hand")),
    )  # fmt: skip
    await receiver.serve(port)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
